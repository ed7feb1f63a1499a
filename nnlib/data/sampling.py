"""Which rows a worker draws in a round and in which order it visits them: pure functions of integers."""

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
    """Rows drawn from ``rows``: floor(fraction * rows + 1/2), and at least one if there are any."""
    return min(rows, max(1, math.floor(fraction * rows + 0.5)))


def sample_mask(row: IntArray, fraction: float, key: Key) -> BoolArray:
    """Choose exactly `sample_size` of the given rows, those with the smallest hash.

    ``row``: ids of a worker's training rows, shape (n,), no two alike. ``key``: `nnlib.core.seeds.hash_key` with
    ``Purpose.SAMPLE``, the first epoch of the round and the worker (0 for shared streams). The choice depends on the
    set of ids alone, not on their order.
    """
    hashes = row_hash(row, key)
    return before(hashes, cut_at(hashes, sample_size(len(row), fraction)))


class Piece(NamedTuple):
    """Rows ``start:stop`` of one row group (counting chosen rows only)."""

    group: int
    start: int
    stop: int


class Window(NamedTuple):
    """Rows that are shuffled together: the pieces' rows one after the other, then permuted."""

    pieces: tuple[Piece, ...]
    permutation: IntArray


def epoch_order(group_sizes: Sequence[int], window_rows: int, rng: np.random.Generator) -> Iterator[Window]:
    """The order of one epoch: permute the row groups, cut their rows into windows, permute inside each window.

    ``group_sizes``: chosen rows of each row group. All draws come from ``rng`` in one order (groups, then the windows
    as they come), so a reader that holds everything and one that holds a single window see the same sequence.
    """
    groups = rng.permutation(len(group_sizes))
    pieces: list[Piece] = []
    filled = 0
    for group in groups.tolist():
        start, size = 0, int(group_sizes[group])
        while start < size:
            stop = min(size, start + window_rows - filled)
            pieces.append(Piece(group, start, stop))
            filled += stop - start
            start = stop
            if filled == window_rows:
                yield Window(tuple(pieces), rng.permutation(filled))
                pieces, filled = [], 0
    if filled:
        yield Window(tuple(pieces), rng.permutation(filled))
