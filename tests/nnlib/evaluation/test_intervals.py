"""Confidence intervals against published and independently computed numbers."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from nnlib.evaluation.intervals import over_splits, wilson


def test_wilson_of_a_published_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


@pytest.mark.parametrize("hits", [0, 1, 7, 19, 20])
def test_wilson_agrees_with_scipy(hits: int) -> None:
    theirs = stats.binomtest(hits, 20).proportion_ci(0.9, method="wilson")
    assert wilson(hits, 20, 0.9) == pytest.approx((theirs.low, theirs.high))


def test_over_splits_by_hand() -> None:
    # mean 2, s^2 1, t(2; 0.975) = 4.302653; uncorrected it is the interval of three independent values.
    half = 4.302653 * math.sqrt((1 / 3 + 0.25) * 1)
    assert over_splits([1, 2, 3], 0.25) == pytest.approx((2 - half, 2 + half), rel=1e-6)
    plain = stats.t.interval(0.95, 2, loc=2, scale=stats.sem([1, 2, 3]))
    assert over_splits([1, 2, 3], 0.0) == pytest.approx(plain)
    assert over_splits([0.5, 0.5], 0.4) == (0.5, 0.5)
