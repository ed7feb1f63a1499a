"""Ranks found by streaming are those of a sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.data.split.rank_selection import EVERYTHING, RankSelector, before, cut_at

hashes_of = st.lists(st.integers(0, 2**64 - 1), max_size=150, unique=True).map(
    lambda values: np.array(values, np.uint64)
)


def find_cuts(
    strata: int, stratum: np.ndarray, hashes: np.ndarray, ranks: list[list[int]], step: int
) -> list[list[int]]:
    selector = RankSelector(strata)
    pieces = [slice(start, start + step) for start in range(0, len(hashes), step)]
    for piece in pieces:
        selector.count(stratum[piece], hashes[piece])
    assert selector.totals == np.bincount(stratum, minlength=strata).tolist()
    selector.seek(ranks)
    for piece in reversed(pieces):
        selector.collect(stratum[piece], hashes[piece])
    return selector.cuts()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(hashes_of, st.sampled_from([1, 3, 100, 5000]), st.integers(1, 40), st.lists(st.integers(0, 160), max_size=4))
def test_exactly_as_many_lie_before_a_cut_as_its_rank(
    hashes: np.ndarray, strata: int, step: int, ranks: list[int]
) -> None:
    stratum = np.arange(len(hashes)) % min(strata, 5)
    cuts = find_cuts(strata, stratum, hashes, [ranks] * strata, step)
    for one in range(min(strata, 5)):
        chosen = hashes[stratum == one]
        for rank, cut in zip(ranks, cuts[one], strict=True):
            assert before(chosen, cut).sum() == min(rank, len(chosen))
            assert cut == cut_at(chosen, rank)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(hashes_of.filter(len), st.lists(st.integers(1, 9), min_size=150, max_size=150), st.integers(0, 1400))
def test_equal_hashes_stay_on_one_side_of_the_nearest_cut(hashes: np.ndarray, repeats: list[int], rank: int) -> None:
    repeated = np.repeat(hashes, repeats[: len(hashes)])
    ((cut,),) = find_cuts(1, np.zeros(len(repeated), np.int64), repeated, [[rank]], 17)
    order = np.argsort(hashes)
    ends = np.concatenate([[0], np.cumsum(np.array(repeats[: len(hashes)])[order])])
    assert before(repeated, cut).sum() == ends[np.argmin(np.abs(ends - rank))]


def test_close_hashes_share_a_bucket() -> None:
    """All in one bucket: the second pass decides."""
    hashes = np.uint64(2**63) + np.random.default_rng(0).permutation(1000).astype(np.uint64)
    ((low, high, end),) = find_cuts(1, np.zeros(1000, np.int64), hashes, [[0, 700, 1000]], 64)
    assert (low, high, end) == (2**63, 2**63 + 700, EVERYTHING)


@pytest.mark.parametrize("cut", [0, EVERYTHING])
def test_the_outermost_cuts(cut: int) -> None:
    hashes = np.array([0, 2**64 - 1], np.uint64)
    assert before(hashes, cut).tolist() == [cut == EVERYTHING] * 2
