"""Controlled rounding: exact sums both ways, every share within one of its proportion."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.data.split.apportionment import apportion


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_sums_are_exact_and_shares_proportional(rows: list[int], points: list[float]) -> None:
    n = sum(rows)
    ends = [0, *sorted(round(point * n) for point in points), n]
    totals = [after - before for before, after in pairwise(ends)]
    shares = apportion(rows, totals)
    assert [sum(share) for share in shares] == rows
    assert [sum(column) for column in zip(*shares, strict=True)] == totals
    for count, share in zip(rows, shares, strict=True):
        for total, part in zip(totals, share, strict=True):
            assert abs(part * n - count * total) < max(n, 1)


def test_two_parts_are_the_largest_remainders() -> None:
    # 0.7 of 11, 7 and 2 rows: 7.7, 4.9 and 1.4 of 14; rounded down 7 + 4 + 1, the two missing go to .9 and .7.
    assert apportion([11, 7, 2], [14, 6]) == [[8, 3], [5, 2], [1, 1]]


def test_units_move_where_the_greedy_choice_gets_stuck() -> None:
    """All small cases, so that the augmenting path is taken too."""
    for a in range(1, 7):
        for b in range(1, 7):
            for c in range(1, 7):
                n = a + b + c
                for first in range(n + 1):
                    for second in range(n + 1 - first):
                        totals = [first, second, n - first - second]
                        shares = apportion([a, b, c], totals)
                        assert [sum(column) for column in zip(*shares, strict=True)] == totals
                        assert [sum(share) for share in shares] == [a, b, c]


def test_sums_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="rows sum to 3, totals to 4"):
        apportion([1, 2], [4])
