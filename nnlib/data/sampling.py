"""Draw the rows of a round and the order of an epoch: pure functions of integers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nnlib.core.arrays import BoolArray, IntArray
from nnlib.core.seeds import row_hash
from nnlib.data.split.rank_selection import before, cut_at

Key = tuple[int, int]


def sample_size(rows: int, fraction: float) -> int:
    """Return the number of rows drawn from ``rows``: floor(fraction * rows + 1/2), but at least one if there are
    any."""
    return min(rows, max(1, math.floor(fraction * rows + 0.5)))


def sample_mask(row: IntArray, fraction: float, key: Key) -> BoolArray:
    """Return which rows are drawn, shape (n,): exactly `sample_size` of them, those with the smallest hashes.

    ``row``: distinct ids of a worker's training rows, shape (n,). ``key``: `nnlib.core.seeds.hash_key` with
    ``Purpose.SAMPLE``, the first epoch of the round and the worker (0 for shared streams). The rows drawn depend on the
    set of ids, not on their order.
    """
    hashes = row_hash(row, key)
    return before(hashes, cut_at(hashes, sample_size(len(row), fraction)))


class SamplePiece(NamedTuple):
    """Rows ``start:stop`` among the selected rows of one row group."""

    group: int
    start: int
    stop: int


class Window(NamedTuple):
    """Rows that are shuffled together: those of ``pieces`` one after another, then permuted; shape (rows,)."""

    pieces: tuple[SamplePiece, ...]
    permutation: IntArray


def epoch_order(group_sizes: Sequence[int], window_rows: int, rng: np.random.Generator) -> Iterator[Window]:
    """Yield the order of one epoch: row groups are permuted, cut into windows, and rows are permuted in each window.

    ``group_sizes``: selected rows of each row group. ``window_rows``: rows of a window; the last may have fewer.
    ``rng`` draws the groups first, then each window as it comes. So a reader that holds all rows and one that holds a
    single window get the same order.
    """
    groups = rng.permutation(len(group_sizes))
    pieces: list[SamplePiece] = []
    filled = 0
    for group in groups.tolist():
        start, size = 0, int(group_sizes[group])
        while start < size:
            stop = min(size, start + window_rows - filled)
            pieces.append(SamplePiece(group, start, stop))
            filled += stop - start
            start = stop
            if filled == window_rows:
                yield Window(tuple(pieces), rng.permutation(filled))
                pieces, filled = [], 0
    if filled:
        yield Window(tuple(pieces), rng.permutation(filled))
