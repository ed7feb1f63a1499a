"""Find the k-th smallest hash of a stream in two passes, in memory that does not grow with the stream.

A *cut* is a number in [0, 2**64]; a hash lies before it if it is smaller. `EVERYTHING` is the cut after all hashes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnlib.core.arrays import BoolArray, IntArray
from nnlib.core.seeds import UInt64

EVERYTHING = 2**64
_TABLE = 2**17


def before(hashes: UInt64, cut: int) -> BoolArray:
    """Return which of the hashes lie before the cut, both of shape (n,)."""
    if cut >= EVERYTHING:
        return np.ones(hashes.shape, np.bool_)
    return np.asarray(hashes < np.uint64(cut))


def cut_at(hashes: UInt64, count: int) -> int:
    """Return the cut that has exactly the ``count`` smallest hashes before it; ``hashes`` must be distinct."""
    if count >= len(hashes):
        return EVERYTHING
    return int(np.partition(hashes, count)[count])


class RankSelector:
    """Finds cuts at given ranks in each of several strata, streaming: `count` all rows, `seek`, then `collect` all
    again.

    Pass 1 fills a histogram over the hashes' leading bits; pass 2 keeps only the hashes in the buckets where a cut
    must lie. Equal hashes (rows of one group) stay on one side: the cut then goes to the nearest rank where a group
    ends, the lower one if two are as near.
    """

    def __init__(self, strata: int) -> None:
        # Fewer leading bits for many strata: the table stays small and the cuts are the same for any number of bits.
        bits = max(1, min(16, (_TABLE // max(strata, 1)).bit_length() - 1))
        self._shift = 64 - bits
        self._histogram = np.zeros((strata, 2**bits), np.int64)
        self._ranks: Sequence[Sequence[int]] = ()
        self._cumulative: IntArray = self._histogram
        self._wanted: BoolArray = np.zeros(0, np.bool_)
        self._candidates: list[tuple[IntArray, UInt64, IntArray]] = []

    def _bucket(self, stratum: IntArray, hashes: UInt64) -> IntArray:
        bucket = (hashes >> np.uint64(self._shift)).astype(np.int64)
        return np.asarray(bucket + stratum * self._histogram.shape[1])

    def count(self, stratum: IntArray, hashes: UInt64) -> None:
        """Count some rows, in the first pass. ``stratum`` (index of each row's stratum) and ``hashes``: shape (n,)."""
        np.add.at(self._histogram.reshape(-1), self._bucket(stratum, hashes), 1)

    @property
    def totals(self) -> list[int]:
        """Rows counted so far in each stratum."""
        return [int(total) for total in self._histogram.sum(axis=1)]

    def seek(self, ranks: Sequence[Sequence[int]]) -> None:
        """Set the wanted ranks (rows before the cut) of each stratum, between the two passes."""
        self._ranks = ranks
        self._cumulative = np.cumsum(self._histogram, axis=1)
        wanted = np.zeros(self._histogram.shape, np.bool_)
        for stratum, stratum_ranks in enumerate(ranks):
            for rank in stratum_ranks:
                if rank < self._cumulative[stratum, -1]:
                    wanted[stratum, np.searchsorted(self._cumulative[stratum], rank, side="right")] = True
        self._wanted = wanted.reshape(-1)

    def collect(self, stratum: IntArray, hashes: UInt64) -> None:
        """Collect some rows, in the second pass: all rows of the first one, in any order and in chunks of any size."""
        keep = self._wanted[self._bucket(stratum, hashes)]
        stratum, hashes = stratum[keep], hashes[keep]
        for one in np.flatnonzero(np.bincount(stratum)):
            # Equal hashes are stored once, with their number: a huge group takes no more memory than a small one.
            values = np.sort(hashes[stratum == one])
            starts = _runs(values)
            counts = np.diff(starts, append=len(values))
            self._candidates.append((np.full(len(starts), one, np.int64), values[starts], counts))

    def cuts(self) -> list[list[int]]:
        """Return the cuts at the ranks set by `seek`: a list for each stratum, in the order of the ranks."""
        empty = (np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.int64))
        stratum, hashes, counts = (np.concatenate(column) for column in zip(empty, *self._candidates, strict=True))
        result: list[list[int]] = []
        for one, ranks in enumerate(self._ranks):
            chosen = stratum == one
            order = np.argsort(hashes[chosen], kind="stable")
            result.append([self._cut(one, rank, hashes[chosen][order], counts[chosen][order]) for rank in ranks])
        return result

    def _cut(self, stratum: int, rank: int, hashes: UInt64, counts: IntArray) -> int:
        cumulative = self._cumulative[stratum]
        if rank >= cumulative[-1]:
            return EVERYTHING
        bucket = int(np.searchsorted(cumulative, rank, side="right"))
        inside = (hashes >> np.uint64(self._shift)) == np.uint64(bucket)
        starts = _runs(hashes[inside])
        values, sizes = hashes[inside][starts], np.add.reduceat(counts[inside], starts)
        first = int(cumulative[bucket] - self._histogram[stratum, bucket])
        ends = first + np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        nearest = int(np.argmin(np.abs(ends - rank)))
        return int(values[nearest]) if nearest < len(values) else (bucket + 1) << self._shift


def _runs(values: UInt64) -> IntArray:
    """Where each run of equal values begins. (numpy.unique would import numpy.ma: 25 ms of every start.)"""
    first = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return np.flatnonzero(first)
