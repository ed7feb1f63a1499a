"""Which shard a row goes to and where it lies there: pure functions of the row id, the seed and the counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnlib.core.seeds import Purpose, UInt64, hash_key, row_hash

Int64 = npt.NDArray[np.int64]


def deal(rows: Int64, shards: int, seed: int) -> Int64:
    """The shard of each row, shape (n,): every block of ``shards`` consecutive rows is dealt one to a shard.

    Each block is permuted by a keyed hash of its row ids, so shard sizes differ by at most one and any range of
    the input (a class, if it is sorted) is spread evenly.
    """
    if len(rows) == 0:
        return np.empty(0, np.int64)
    blocks, places = np.divmod(rows, shards)
    distinct, inverse = np.unique(blocks, return_inverse=True)
    members = distinct[:, None] * shards + np.arange(shards)
    hashes = row_hash(members.ravel(), hash_key(seed, Purpose.DEAL)).reshape(members.shape)
    ranks = hashes.argsort(axis=1).argsort(axis=1)
    return ranks[inverse, places]


class LabelDealer:
    """Deals rows sorted by label (equal labels by row id) in ``shards`` contiguous parts of equal size.

    The parts differ by at most one row. Rows must be given in order of their ids; ``before`` are the rows of each class
    that lie before the first one given.
    """

    def __init__(self, class_counts: Sequence[int], shards: int, before: Sequence[int] | None = None) -> None:
        self._rows = sum(class_counts)
        self._shards = shards
        self._next = np.concatenate([[0], np.cumsum(class_counts)[:-1]]).astype(np.int64)
        if before is not None:
            self._next += np.asarray(before, np.int64)

    def deal(self, y: npt.NDArray[np.int32]) -> Int64:
        """The shard of each of the next rows, by their class indices."""
        order = np.argsort(y, kind="stable")
        counts = np.bincount(y, minlength=len(self._next))
        within = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
        positions = np.empty(len(y), np.int64)
        positions[order] = self._next[y[order]] + within
        self._next += counts
        edges = np.asarray(even_edges(self._rows, self._shards))
        return np.searchsorted(edges, positions, side="right") - 1


def even_edges(rows: int, shards: int) -> list[int]:
    """Where ``shards`` contiguous parts of ``rows`` rows begin, and the end."""
    return [part * rows // shards for part in range(shards + 1)]


def order_hash(rows: Int64, seed: int) -> UInt64:
    """The rows of a shard lie in ascending order of this hash: a seeded permutation that needs no memory."""
    return row_hash(rows, hash_key(seed, Purpose.SHUFFLE))


def bucket_of(hashes: UInt64, buckets: int) -> Int64:
    """Which of ``buckets`` equal ranges of the hash each value lies in: sorted buckets in order are sorted."""
    high = hashes >> np.uint64(32)
    return ((high * np.uint64(buckets)) >> np.uint64(32)).astype(np.int64)
