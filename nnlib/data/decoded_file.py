"""The file of one shard's decoded rows: written once, then mapped or read by every task of the node.

Row group by row group it holds the features (C order), the row ids, the labels and the extra columns (an Arrow stream),
each padded to 64 bytes. The facts (JSON) follow: rows and checksums of each group. The end has fixed length: the length
of the file and of the facts, and a checksum of the facts. So a file that was cut, or whose blocks never reached the
disk, is noticed when it is opened, and other damage when its rows are read.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.arrays import Array
from nnlib.core.layout import aligned_empty
from nnlib.core.liveness import heartbeat
from nnlib.data.dataset import Dataset, Shard
from nnlib.data.shard_reader import RowGroup, RowLabels, ShardReader
from nnlib.data.split.rule import ExtraColumns

FORMAT = 1
"""Version of the layout. Files of another version are never opened: it is part of their names."""

_ALIGNMENT = 64
_END = struct.Struct("<8sQQI")  # mark, bytes of the file, bytes of the facts, their CRC-32
_MARK = b"nnjrows1"
_LABEL_BYTES = 16
_EXTRA_BYTES = 64
"""Assumed bytes of a value of an extra column, which may be a text."""
_GROUP_BYTES = 1024
"""Assumed bytes that a row group takes besides its rows: padding, its facts, its Arrow schema."""


class DamagedFileError(Exception):
    """A file of decoded rows is not what was written."""


@dataclass(frozen=True)
class _Group:
    """Where the parts of a row group begin, in bytes, and what they must sum to."""

    rows: int
    x: int
    labels: int
    extra: int
    extra_bytes: int
    x_sum: int
    label_sum: int
    extra_crc: int


@dataclass(frozen=True)
class RowForm:
    """The types of a shard's decoded rows: what a reader must know beforehand."""

    features: int
    x: np.dtype[Any]
    y: np.dtype[Any]
    extra: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset, extra_columns: Sequence[str]) -> RowForm:
        """Return the form of a dataset's rows with some extra columns."""
        y = np.dtype(np.int64 if dataset.classes else np.float64)
        return cls(dataset.features, np.dtype(dataset.x_dtype), y, tuple(extra_columns))

    def bytes_of(self, shard: Shard) -> int:
        """Return about how many bytes the file of a shard takes, rather too many than too few."""
        row = self.features * self.x.itemsize + _LABEL_BYTES + _EXTRA_BYTES * len(self.extra)
        return shard.rows * row + _GROUP_BYTES * (shard.row_groups + 1)


def write_decoded(target: BinaryIO, reader: ShardReader, form: RowForm) -> None:
    """Decode a shard and write its rows. Raises `OSError`, and as `ShardReader` does."""
    facts = []
    for index in range(len(reader.group_rows)):
        group = reader.row_group(index)
        x, row, y = np.ascontiguousarray(group.x), group.row, group.y.astype(form.y, copy=False)
        extra = np.frombuffer(_to_stream(group.extra), np.uint8)
        for part in ((x,), (row, y), (extra,)):
            size = sum(target.write(_bytes(data).data) for data in part)
            target.write(bytes(-size % _ALIGNMENT))
        label_sum = (_sum(_bytes(row)) + _sum(_bytes(y))) % 2**64
        facts.append([len(row), _sum(_bytes(x)), label_sum, len(extra), zlib.crc32(extra.data)])
    text = json.dumps(facts, separators=(",", ":")).encode()
    target.write(text)
    target.write(_END.pack(_MARK, target.tell() + _END.size, len(text), zlib.crc32(text)))


class DecodedFile:
    """A shard's decoded rows in a file. It has the methods of `ShardReader` by which rows are read.

    ``stream``: the file, opened for unbuffered reading; it is closed at `close`. ``shard``: the index of the shard in
    its dataset. Raises `DamagedFileError` where the file's end does not show that it is whole; reading raises it where
    rows are not what was written.
    """

    def __init__(self, stream: io.FileIO, shard: int, form: RowForm) -> None:
        self._stream, self._shard, self._form = stream, shard, form
        self._groups = self._read_facts()
        self.group_rows = tuple(group.rows for group in self._groups)

    def close(self) -> None:
        """Close the file. Mapped rows stay."""
        self._stream.close()

    def row_group(self, index: int) -> RowGroup:
        """Read a row group into memory."""
        heartbeat()
        group = self._groups[index]
        data = self._read(group.x, group.extra + group.extra_bytes - group.x)
        return self._row_group(index, data, group.x)

    def labels(self) -> Iterator[RowLabels]:
        """Read the labels of each row group in order, without its features."""
        for group in self._groups:
            data = self._read(group.labels, group.extra + group.extra_bytes - group.labels)
            yield self._labels(group, data, group.labels)

    def map_row_groups(self) -> list[RowGroup]:
        """Map the file and return its row groups: their memory is the system's copy of the file, which all processes
        of the node share. All rows are compared with their checksums: 6 GB a second."""
        heartbeat()
        data = np.frombuffer(mmap.mmap(self._stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        return [self._row_group(index, data, 0) for index in range(len(self._groups))]

    def _row_group(self, index: int, data: Array, start: int) -> RowGroup:
        """Return a row group of ``data``, the bytes of the file from ``start`` on."""
        group = self._groups[index]
        part = data[group.x - start : group.labels - start]
        if _sum(part) != group.x_sum:
            raise DamagedFileError(f"the features of row group {index}")
        size = group.rows * self._form.features * self._form.x.itemsize
        x = part[:size].view(self._form.x).reshape(group.rows, self._form.features)
        labels = self._labels(group, data, start)
        return RowGroup(self._shard, index, labels.row, x, labels.y, labels.extra)

    def _labels(self, group: _Group, data: Array, start: int) -> RowLabels:
        part = data[group.labels - start : group.extra - start]
        text = data[group.extra - start : group.extra + group.extra_bytes - start]
        if _sum(part) != group.label_sum or zlib.crc32(text.data) != group.extra_crc:
            raise DamagedFileError("the labels of a row group")
        row, y = part[: 8 * group.rows].view(np.int64), part[8 * group.rows : 16 * group.rows].view(self._form.y)
        return RowLabels(row, y, _from_stream(text) if self._form.extra else {})

    def _read(self, start: int, size: int) -> Array:
        """Read bytes of the file; they cannot be written."""
        data = aligned_empty(size, np.uint8)
        view, filled = data.data, 0
        self._stream.seek(start)
        while filled < size:
            count = self._stream.readinto(view[filled:])
            if not count:
                raise DamagedFileError("it was cut")
            filled += count
        data.flags.writeable = False
        return data

    def _read_facts(self) -> list[_Group]:
        size = os.fstat(self._stream.fileno()).st_size
        if size < _END.size:
            raise DamagedFileError("it was cut")
        mark, whole, length, crc = _END.unpack(self._read(size - _END.size, _END.size).tobytes())
        if mark != _MARK or whole != size or length > size - _END.size:
            raise DamagedFileError("it was cut")
        text = self._read(size - _END.size - length, length).tobytes()
        if zlib.crc32(text) != crc:
            raise DamagedFileError("its facts")
        groups: list[_Group] = []
        start = 0
        for rows, x_sum, label_sum, extra_bytes, extra_crc in json.loads(text):
            labels = start + _padded(rows * self._form.features * self._form.x.itemsize)
            extra = labels + _padded(_LABEL_BYTES * rows)
            groups.append(_Group(rows, start, labels, extra, extra_bytes, x_sum, label_sum, extra_crc))
            start = extra + _padded(extra_bytes)
        if start != size - _END.size - length:
            raise DamagedFileError("its facts")
        return groups


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _bytes(array: Array) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _sum(data: npt.NDArray[np.uint8]) -> int:
    """Return the sum of 64-bit words modulo 2**64, as if zeros followed: no single flipped bit and no block of zeros
    keeps it, and it takes a seventh of the time of a CRC."""
    whole = len(data) // 8 * 8
    words = int(np.add.reduce(data[:whole].view(np.uint64), dtype=np.uint64))
    return (words + int.from_bytes(data[whole:].tobytes().ljust(8, b"\0"), "little")) % 2**64


def _to_stream(columns: ExtraColumns) -> bytes:
    """Write extra columns as an Arrow stream; none as nothing."""
    if not columns:
        return b""
    batch = pa.record_batch({name: pa.array(values, from_pandas=False) for name, values in columns.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())


def _from_stream(text: Array) -> dict[str, Array]:
    """Read what `_to_stream` wrote."""
    with pa.ipc.open_stream(pa.py_buffer(text.tobytes())) as stream:
        (batch,) = stream
    return {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
