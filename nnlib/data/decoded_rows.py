"""The rows of some shards: held if they fit in memory, else read when they are needed.

Where a node keeps decoded rows (`nnlib.data.decoded_cache`) it decodes them once: those that fit in memory are mapped
from its files, others are read from there. Else they are decoded once per process, or for every use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.arrays import Array, IntArray
from nnlib.core.layout import aligned_empty
from nnlib.data.dataset import Dataset
from nnlib.data.decoded_cache import LEAST_BYTES, DecodedCache
from nnlib.data.decoded_file import DamagedFileError, DecodedFile
from nnlib.data.feature_converter import Converter
from nnlib.data.shard_cache import ShardCache
from nnlib.data.shard_reader import RowGroup, RowLabels, ShardReader
from nnlib.data.split.rule import ExtraColumns

MOST_MAPPED = 256
"""Files that a process maps for one worker; each takes a file descriptor. The rows of more are copied into memory."""

CONVERTED_ROWS = 1024
"""Rows that are converted at once. Any number gives the same bits."""

T = TypeVar("T")


class RowGroupRange(NamedTuple):
    """Row group ``number`` of a shard; its rows are ``start:stop`` among the rows of all the shards."""

    shard: int
    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class Block:
    """The decoded rows of some row groups, n of them.

    ``x``: features as stored, shape (n, features), in one piece; or, where they are mapped, a piece for each row group.
    ``row``: ids, shape (n,) int64. ``y``: class indices (int64) or targets (float64), shape (n,). ``extra``: extra
    columns, shape (n,) each.
    """

    groups: tuple[RowGroupRange, ...]
    x: Array | tuple[Array, ...]
    row: IntArray
    y: Array
    extra: ExtraColumns


class SizedCache(Generic[T]):
    """Keeps items of known size in bytes; the least recently used are dropped first."""

    def __init__(self) -> None:
        self._items: OrderedDict[Hashable, tuple[int, T]] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes of all items together."""
        return sum(size for size, _ in self._items.values())

    def get(self, key: Hashable, size: int, limit: int, make: Callable[[], T]) -> T:
        """Return the item at ``key``, or make it.

        ``size``: its bytes. Other items are dropped before it is made, until all fit in ``limit`` bytes.
        """
        if key not in self._items:
            self.shrink(limit - size)
            self._items[key] = (size, make())
        self._items.move_to_end(key)
        return self._items[key][1]

    def shrink(self, limit: int) -> None:
        """Drop items until at most ``limit`` bytes are left."""
        while self._items and self.size > limit:
            self._items.popitem(last=False)

    def clear(self) -> None:
        """Drop all items."""
        self._items.clear()


# Shared by inline workers, rounds and trials of one process, so that a shard is decoded once. There are two, because a
# converted copy must never push out decoded rows: it is cheaper to make again.
BLOCKS: SizedCache[Block] = SizedCache()
CONVERTED: SizedCache[Array] = SizedCache()


class ShardRows:
    """The row groups of some shards, in storage order (shard, row group, row).

    ``memory_bytes`` bounds the decoded rows that are held; reading takes one more row group at a time.
    ``extra_columns`` names columns to read as well. Opening checks the shards that are not decoded yet against the
    manifest, once per process (`nnlib.data.shard_reader.ShardReader`) and raises as that does. ``decoded``: the node's
    decoded rows (None: it keeps none). ``block`` holds all rows, or is None if they do not fit.
    """

    def __init__(
        self,
        dataset: Dataset,
        shards: Sequence[int],
        *,
        memory_bytes: int,
        extra_columns: Sequence[str] = (),
        cache: ShardCache | None = None,
        decoded: DecodedCache | None = None,
    ) -> None:
        self.dataset = dataset
        self._cache, self._decoded = cache, decoded
        self.shards = tuple(sorted(set(shards)))
        self.memory_bytes = memory_bytes
        self.extra_columns = tuple(extra_columns)
        self.stored = np.dtype(dataset.x_dtype)
        self.rows = sum(dataset.shards[shard].rows for shard in self.shards)
        self.row_bytes = dataset.features * self.stored.itemsize
        self._bytes = self.rows * (self.row_bytes + 16 + 8 * len(self.extra_columns))
        self._key = (dataset.fingerprint, self.shards, self.extra_columns)
        self._readers: dict[int, ShardReader | DecodedFile] = {}
        self.block: Block | None = None
        try:
            if self._bytes <= memory_bytes:
                self.block = BLOCKS.get(self._key, self._bytes, memory_bytes, self._hold)
            self.groups = self._open() if self.block is None else self.block.groups
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files of the shards, if any are open."""
        for reader in self._readers.values():
            reader.close()

    def groups_of(self, shards: Sequence[int]) -> list[RowGroupRange]:
        """Return the row groups of some of the shards, in storage order."""
        return [group for group in self.groups if group.shard in shards]

    def labels(self, shards: Sequence[int]) -> Iterator[RowLabels]:
        """Yield the labels of each row group of some of the shards, in storage order."""
        block = self.block
        if block is None:
            for shard in self.shards:
                if shard in shards:
                    yield from self._labels_of(shard)
            return
        for group in self.groups_of(shards):
            part = slice(group.start, group.stop)
            extra = {name: values[part] for name, values in block.extra.items()}
            yield RowLabels(block.row[part], block.y[part], extra)

    def read(self, group: RowGroupRange) -> RowGroup:
        """Read a row group from its file; only for rows that are not held."""
        try:
            return self._readers[group.shard].row_group(group.number)
        except DamagedFileError:
            return self._without_file(group.shard).row_group(group.number)

    def convert(self, converter: Converter) -> Array | None:
        """Return all rows as a model sees them, shape (n, features), in the model's dtype.

        None if the rows are not held, a converted copy of them does not fit in memory, or they are mapped and need no
        conversion.
        """
        block = self.block
        if block is None or converter.is_identity(self.stored):
            return None if block is None or isinstance(block.x, tuple) else block.x
        pieces = block.x if isinstance(block.x, tuple) else (block.x,)
        size = self.rows * self.dataset.features * converter.dtype.itemsize
        room = self.memory_bytes - BLOCKS.size
        if size > room:
            return None
        into = (self.rows, self.dataset.features, converter.dtype)
        return CONVERTED.get(
            (self._key, converter.key), size, room, lambda: _converted(converter, pieces, aligned_matrix(*into))
        )

    def _labels_of(self, shard: int) -> Iterator[RowLabels]:
        passed = 0
        try:
            for labels in self._readers[shard].labels():
                yield labels
                passed += 1
        except DamagedFileError:
            yield from islice(self._without_file(shard).labels(), passed, None)

    def _without_file(self, shard: int) -> ShardReader:
        """Read a shard itself from now on, because the file of its decoded rows is damaged; delete that."""
        assert self._decoded is not None
        self._readers[shard].close()
        self._decoded.drop(self.dataset, shard, self.extra_columns)
        reader = self._readers[shard] = ShardReader(self.dataset, shard, self.extra_columns, self._cache)
        return reader

    def _open(self) -> tuple[RowGroupRange, ...]:
        files: Mapping[int, DecodedFile] = {}
        if self._decoded is not None and self._bytes >= LEAST_BYTES:
            files = self._decoded.open(self.dataset, self.shards, self.extra_columns, self._cache)
        self._readers.update(files)
        groups: list[RowGroupRange] = []
        start = 0
        for shard in self.shards:
            if shard not in files:
                self._readers[shard] = ShardReader(self.dataset, shard, self.extra_columns, self._cache)
            for number, size in enumerate(self._readers[shard].group_rows):
                groups.append(RowGroupRange(shard, number, start, start + size))
                start += size
        return tuple(groups)

    def _hold(self) -> Block:
        """Return all rows: mapped where the node keeps all of them, else in memory of this process."""
        CONVERTED.shrink(self.memory_bytes - BLOCKS.size - self._bytes)
        groups = self._open()
        block = self._map(groups)
        if block is None:
            block = self._decode(groups)
        self.close()
        return block

    def _map(self, groups: tuple[RowGroupRange, ...]) -> Block | None:
        files = {shard: file for shard, file in self._readers.items() if isinstance(file, DecodedFile)}
        if len(files) < len(self.shards) or len(files) > MOST_MAPPED:
            return None
        mapped: list[RowGroup] = []
        for shard in self.shards:
            try:
                mapped += files[shard].map_row_groups()
            except DamagedFileError:
                self._without_file(shard)
                return None
        row, y = (np.concatenate([getattr(rows, name) for rows in mapped]) for name in ("row", "y"))
        extra = {name: np.concatenate([rows.extra[name] for rows in mapped]) for name in self.extra_columns}
        return Block(groups, tuple(rows.x for rows in mapped), _frozen(row), _frozen(y), extra)

    def _decode(self, groups: tuple[RowGroupRange, ...]) -> Block:
        x = aligned_matrix(self.rows, self.dataset.features, self.stored)
        row = np.empty(self.rows, np.int64)
        y: Array = np.empty(self.rows, np.int64 if self.dataset.classes else np.float64)
        extras: list[ExtraColumns] = []
        for group in groups:
            rows = self.read(group)
            part = slice(group.start, group.stop)
            x[part], row[part], y[part] = rows.x, rows.row, rows.y
            extras.append(rows.extra)
        pa.default_memory_pool().release_unused()  # else Arrow keeps some 30 MB of decoding buffers for itself
        extra = {name: np.concatenate([columns[name] for columns in extras]) for name in self.extra_columns}
        return Block(groups, _frozen(x), _frozen(row), _frozen(y), extra)


def _converted(converter: Converter, pieces: Iterable[Array], into: Array) -> Array:
    """Convert the rows of all pieces, some at a time: they then stay in the processor's cache between the steps."""
    filled = 0
    for piece in pieces:
        for start in range(0, len(piece), CONVERTED_ROWS):
            part = piece[start : start + CONVERTED_ROWS]
            converter(part, into[filled : filled + len(part)])
            filled += len(part)
    return _frozen(into)


def aligned_matrix(rows: int, columns: int, dtype: npt.DTypeLike) -> Array:
    """Return an uninitialised matrix, shape (rows, columns), that begins on a cache line."""
    return aligned_empty(rows * columns, dtype).reshape(rows, columns)


def _frozen(array: Array) -> Array:
    """Make an array read-only: all workers and trials of a process share it."""
    array.flags.writeable = False
    return array
