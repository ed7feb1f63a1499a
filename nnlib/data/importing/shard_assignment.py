"""Which shard a row goes to, and its order there: pure functions of the row id, the seed and the counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnlib.core.seeds import Purpose, UInt64, hash_key, row_hash

Int64 = npt.NDArray[np.int64]


def assign_rows(rows: Int64, shards: int, seed: int) -> Int64:
    """Return the shard of each row, shape (n,), by its id: ``rows`` has shape (n,).

    Of every ``shards`` consecutive rows each goes to another shard, in the order of a keyed hash of their ids. So shard
    sizes differ by at most one, and any range of the input (a class, if it is sorted) is spread evenly.
    """
    if len(rows) == 0:
        return np.empty(0, np.int64)
    blocks, positions = np.divmod(rows, shards)
    distinct, inverse = np.unique(blocks, return_inverse=True)
    members = distinct[:, None] * shards + np.arange(shards)
    hashes = row_hash(members.ravel(), hash_key(seed, Purpose.ASSIGN)).reshape(members.shape)
    ranks = hashes.argsort(axis=1).argsort(axis=1)
    return ranks[inverse, positions]


class LabelShardAssigner:
    """Assigns rows sorted by label (equal labels by row id) to ``shards`` contiguous parts of equal size.

    The parts differ by at most one row. ``class_counts`` are the rows of each class in the whole dataset.
    ``class_rows_before`` are the rows of each class before the first one to be assigned (None: there are none).
    """

    def __init__(
        self, class_counts: Sequence[int], shards: int, class_rows_before: Sequence[int] | None = None
    ) -> None:
        self._rows = sum(class_counts)
        self._shards = shards
        self._next = np.concatenate([[0], np.cumsum(class_counts)[:-1]]).astype(np.int64)
        if class_rows_before is not None:
            self._next += np.asarray(class_rows_before, np.int64)

    def assign(self, y: npt.NDArray[np.int32]) -> Int64:
        """Return the shard of each of the next rows, by their class indices ``y``, both of shape (n,).

        Rows must come in the order of their ids.
        """
        order = np.argsort(y, kind="stable")
        counts = np.bincount(y, minlength=len(self._next))
        within = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
        positions = np.empty(len(y), np.int64)
        positions[order] = self._next[y[order]] + within
        self._next += counts
        edges = np.asarray(part_edges(self._rows, self._shards))
        return np.searchsorted(edges, positions, side="right") - 1


def part_edges(rows: int, parts: int) -> list[int]:
    """Return where each of ``parts`` contiguous parts of ``rows`` rows begins, and the end of the last one."""
    return [part * rows // parts for part in range(parts + 1)]


def order_hash(rows: Int64, seed: int) -> UInt64:
    """Return the hash by which the rows of a shard are sorted, shape (n,): a seeded shuffle that needs no memory."""
    return row_hash(rows, hash_key(seed, Purpose.SHUFFLE))


def bucket_of(hashes: UInt64, buckets: int) -> Int64:
    """Return which of ``buckets`` equal ranges each hash lies in, shape (n,).

    Buckets that are sorted one by one are sorted as a whole.
    """
    high = hashes >> np.uint64(32)
    return ((high * np.uint64(buckets)) >> np.uint64(32)).astype(np.int64)
