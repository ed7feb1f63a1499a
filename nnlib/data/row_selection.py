"""Select rows of some shards: from memory, from mapped files, or from files that are read again for every use.

All yield the same rows in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TypeAlias

import numpy as np

from nnlib.core.arrays import Array, BoolArray, IntArray
from nnlib.core.seeds import UInt64, row_hash
from nnlib.data.batches import SelectedRows
from nnlib.data.decoded_rows import Block, RowGroupRange, ShardRows, aligned_matrix
from nnlib.data.sampling import Key, Window, sample_mask, sample_size
from nnlib.data.shard_reader import RowGroup, RowLabels
from nnlib.data.split.rank_selection import EVERYTHING, RankSelector, before

RowFilter: TypeAlias = Callable[[RowLabels | RowGroup], BoolArray]
"""Returns which rows are selected, by their labels: shape (n,)."""


class HeldRows:
    """Selected rows of a block in memory.

    ``x``: the features to take rows from, all rows of the block, stored or converted, shape (rows, features).
    ``positions``: the selected rows in the block, in storage order, shape (n,). ``sizes``: their number in each row
    group.
    """

    def __init__(self, block: Block, x: Array, positions: IntArray, sizes: Sequence[int]) -> None:
        self._block, self._x, self._positions = block, x, positions
        self.sizes = sizes
        self._starts = list(accumulate(sizes, initial=0))
        self.count = len(positions)

    def sample(self, fraction: float, key: Key) -> HeldRows:
        """Return a sample of the rows, as `nnlib.data.sampling.sample_mask` draws it."""
        if not self.count:
            return self
        chosen = sample_mask(self._block.row[self._positions], fraction, key)
        sizes = [int(np.count_nonzero(chosen[a:b])) for a, b in pairwise(self._starts)]
        return self._of(self._positions[chosen], sizes)

    def in_stored_order(self) -> Iterator[SelectedRows]:
        """Yield all rows in storage order."""
        yield self._at(self._positions)

    def in_order(self, order: Iterator[Window]) -> Iterator[SelectedRows]:
        """Yield the rows of each window of ``order`` in turn, permuted within it."""
        for window in order:
            pieces = [
                self._positions[self._starts[group] + start : self._starts[group] + stop]
                for group, start, stop in window.pieces
            ]
            yield self._at(np.concatenate(pieces)[window.permutation])

    def _of(self, positions: IntArray, sizes: Sequence[int]) -> HeldRows:
        return HeldRows(self._block, self._x, positions, sizes)

    def _at(self, positions: IntArray) -> SelectedRows:
        return SelectedRows(self._x, positions, self._block.y[positions], self._block.row[positions])


class MappedRows(HeldRows):
    """Selected rows of a block whose features are mapped, as ``pieces``: one matrix for each of its row groups.

    ``groups``: the row groups that rows were selected from, in storage order.
    """

    def __init__(
        self,
        block: Block,
        pieces: tuple[Array, ...],
        groups: Sequence[RowGroupRange],
        positions: IntArray,
        sizes: Sequence[int],
    ) -> None:
        super().__init__(block, pieces[0], positions, sizes)
        self._pieces, self._groups = pieces, groups
        self._piece_of = {group.start: piece for group, piece in zip(block.groups, pieces, strict=True)}

    def in_stored_order(self) -> Iterator[SelectedRows]:
        """Yield all rows in storage order."""
        for number, group in enumerate(self._groups):
            positions = self._positions[self._starts[number] : self._starts[number + 1]]
            x = self._piece_of[group.start]
            yield SelectedRows(x, positions - group.start, self._block.y[positions], self._block.row[positions])

    def in_order(self, order: Iterator[Window]) -> Iterator[SelectedRows]:
        """Yield the rows of each window of ``order`` in turn, permuted within it."""
        x: Array | None = None
        for window in order:
            if x is None:  # the first window is the largest
                x = aligned_matrix(len(window.permutation), self._x.shape[1], self._x.dtype)
            filled = 0
            pieces = []
            for number, start, stop in window.pieces:
                first, group = self._starts[number], self._groups[number]
                positions = self._positions[first + start : first + stop]
                into = x[filled : filled + len(positions)]
                self._piece_of[group.start].take(positions - group.start, 0, into, "clip")
                pieces.append(positions)
                filled += len(positions)
            permuted = np.concatenate(pieces)[window.permutation]
            yield SelectedRows(x, window.permutation, self._block.y[permuted], self._block.row[permuted])

    def _of(self, positions: IntArray, sizes: Sequence[int]) -> MappedRows:
        return MappedRows(self._block, self._pieces, self._groups, positions, sizes)


class FileRows:
    """Selected rows of shards whose files are read again for every use, with one row group at a time in memory."""

    def __init__(self, rows: ShardRows, shards: Sequence[int], row_filter: RowFilter) -> None:
        self._rows, self._shards, self._filter = rows, shards, row_filter
        self._groups = rows.groups_of(shards)

    @cached_property
    def sizes(self) -> Sequence[int]:
        """The number of selected rows in each row group."""
        return [int(np.count_nonzero(self._filter(labels))) for labels in self._rows.labels(self._shards)]

    @cached_property
    def count(self) -> int:
        """The number of selected rows."""
        return sum(self.sizes)

    def sample(self, fraction: float, key: Key) -> FileRows:
        """Return a sample of the rows, as `HeldRows.sample`."""
        if not self.count:
            return self
        selector = RankSelector(1)
        for hashes in self._hashes(key):
            selector.count(np.zeros(len(hashes), np.int64), hashes)
        selector.seek([[sample_size(self.count, fraction)]])
        for hashes in self._hashes(key):
            selector.collect(np.zeros(len(hashes), np.int64), hashes)
        ((cut,),) = selector.cuts()
        if cut >= EVERYTHING:
            return self
        row_filter = self._filter
        return FileRows(
            self._rows, self._shards, lambda labels: row_filter(labels) & before(row_hash(labels.row, key), cut)
        )

    def in_stored_order(self) -> Iterator[SelectedRows]:
        """Yield all rows in storage order."""
        for number in range(len(self._groups)):
            rows, positions = self._read(number)
            yield SelectedRows(rows.x, positions, rows.y[positions], rows.row[positions])

    def in_order(self, order: Iterator[Window]) -> Iterator[SelectedRows]:
        """Yield the rows of each window of ``order`` in turn, permuted within it."""
        x: Array | None = None
        held, rows, positions = -1, None, np.zeros(0, np.int64)
        for window in order:
            if x is None:  # the first window is the largest
                x = aligned_matrix(len(window.permutation), self._rows.dataset.features, self._rows.stored)
            filled = 0
            labels: list[tuple[Array, IntArray]] = []
            for group, start, stop in window.pieces:
                if rows is None or held != group:
                    rows = None  # frees its memory before the next one is decoded
                    held, (rows, positions) = group, self._read(group)
                chosen = positions[start:stop]
                rows.x.take(chosen, 0, x[filled : filled + len(chosen)], "clip")
                labels.append((rows.y[chosen], rows.row[chosen]))
                filled += len(chosen)
            y, row = (np.concatenate(column) for column in zip(*labels, strict=True))
            yield SelectedRows(x, window.permutation, y[window.permutation], row[window.permutation])

    def _hashes(self, key: Key) -> Iterator[UInt64]:
        for labels in self._rows.labels(self._shards):
            yield row_hash(labels.row[self._filter(labels)], key)

    def _read(self, number: int) -> tuple[RowGroup, IntArray]:
        rows = self._rows.read(self._groups[number])
        return rows, np.flatnonzero(self._filter(rows))


def select_rows(
    rows: ShardRows, shards: Sequence[int], row_filter: RowFilter, converted: Array | None
) -> HeldRows | FileRows:
    """Return the rows of some shards that ``row_filter`` selects.

    ``converted``: all rows as the model sees them, shape (rows, features), to take the selected ones from; None if they
    are not held in memory.
    """
    if rows.block is None:
        return FileRows(rows, shards, row_filter)
    positions = [np.zeros(0, np.int64)]
    for group, labels in zip(rows.groups_of(shards), rows.labels(shards), strict=True):
        positions.append(group.start + np.flatnonzero(row_filter(labels)))
    sizes, chosen = [len(one) for one in positions[1:]], np.concatenate(positions)
    x = rows.block.x if converted is None else converted
    if isinstance(x, tuple):
        return MappedRows(rows.block, x, rows.groups_of(shards), chosen, sizes)
    return HeldRows(rows.block, x, chosen, sizes)
