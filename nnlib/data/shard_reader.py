"""Read one shard of a dataset, row group by row group, and check that it is what the manifest says."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from nnlib.core.arrays import IntArray
from nnlib.core.errors import ConfigError, DataError, MismatchError, StorageError
from nnlib.core.liveness import heartbeat
from nnlib.data.arrow import READ_ERRORS, as_numpy
from nnlib.data.dataset import MOST_ROWS_A_BYTE, Dataset, Shard
from nnlib.data.shard_cache import ShardCache
from nnlib.data.split.rule import ExtraColumns, LabelChunks, Labels
from nnlib.storage import Storage

_VERIFIED: set[tuple[str, str, int, int | None, str]] = set()
"""Shards whose hash this process has checked: (root, name, bytes, modification time if known, SHA-256)."""

_DECODED = 2**19
"""Features decoded at once. Arrow needs about 13 bytes for each while it decodes, so a large row group is decoded in
pieces: that saves 35 MB on 4096 rows of 784 features and costs no time."""

_REPAIR = "`nnjobs data verify` shows all that is wrong; copy the dataset again, or import it again"


class RowLabels(NamedTuple):
    """The rows of one row group without their features.

    ``row``: ids, shape (n,) int64. ``y``: class indices (int64) or targets (float64), shape (n,). ``extra``: extra
    columns, shape (n,) each.
    """

    row: IntArray
    y: npt.NDArray[Any]
    extra: ExtraColumns


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One decoded row group of a shard: what `RowLabels` has, and the features.

    ``x``: features as stored, shape (n, features), C order, read-only.
    """

    shard: int
    index: int
    row: IntArray
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    extra: ExtraColumns


class ShardReader:
    """Opens a shard, checks its size, SHA-256, schema and counts against the manifest, then reads its row groups.

    Use it as a context manager: leaving closes the file. ``extra_columns`` names columns to read as well. ``cache``:
    for shards of a dataset on another machine (None: a `ShardCache` with its defaults). ``group_rows`` has the rows of
    each row group.

    Raises `MismatchError` where the file is not what the manifest says, `DataError`, naming the row, where a value is
    missing, not finite or no class, and `ConfigError` for an extra column that the dataset does not have.
    """

    def __init__(
        self,
        dataset: Dataset,
        shard_index: int,
        extra_columns: Sequence[str] = (),
        cache: ShardCache | None = None,
    ) -> None:
        self.dataset = dataset
        self.index = shard_index
        self.shard: Shard = dataset.shards[shard_index]
        self._extra = tuple(extra_columns)
        self._stream = self._open(cache)
        try:
            self._file = pq.ParquetFile(self._stream)
            self._check_metadata()
        except READ_ERRORS as error:
            self.close()
            raise self._mismatch(f"not a readable Parquet file: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def row_group(self, index: int) -> RowGroup:
        """Decode one row group. Raises `MismatchError` and `DataError` as the class does."""
        heartbeat()
        columns = ["row", "x", "y", *self._extra]
        rows, features = self.group_rows[index], self.dataset.features
        if rows * features <= _DECODED:
            table = self._read(index, columns)
            labels = self._labels(table)
            return RowGroup(self.index, index, labels.row, self._features(table, labels.row), labels.y, labels.extra)
        x = np.empty((rows, features), self.dataset.x_dtype)
        parts: list[RowLabels] = []
        filled = 0
        for table in self._read_pieces(index, columns, max(1, _DECODED // features)):
            parts.append(self._labels(table))
            piece = self._features(table, parts[-1].row)
            x[filled : filled + len(piece)] = piece
            filled += len(piece)
        x.flags.writeable = False
        extra = {name: np.concatenate([part.extra[name] for part in parts]) for name in self._extra}
        row, y = np.concatenate([part.row for part in parts]), np.concatenate([part.y for part in parts])
        return RowGroup(self.index, index, row, x, y, extra)

    def labels(self) -> Iterator[RowLabels]:
        """Yield the labels of each row group in order; features are not read."""
        for index in range(len(self.group_rows)):
            yield self._labels(self._read(index, ["row", "y", *self._extra]))

    def columns(self, index: int, names: Sequence[str]) -> dict[str, pa.Array]:
        """Return extra columns of one row group as they are stored, with their missing values."""
        table = self._read(index, list(names))
        return {name: table.column(name).combine_chunks() for name in names}

    def _read(self, index: int, columns: list[str]) -> pa.Table:
        try:
            return self._file.read_row_group(index, columns=columns, use_threads=False)
        except READ_ERRORS as error:
            raise self._mismatch(f"row group {index} cannot be read: {error}") from error

    def _read_pieces(self, index: int, columns: list[str], rows: int) -> Iterator[pa.Table]:
        try:
            for batch in self._file.iter_batches(rows, row_groups=[index], columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])
        except READ_ERRORS as error:
            raise self._mismatch(f"row group {index} cannot be read: {error}") from error

    def _labels(self, table: pa.Table) -> RowLabels:
        row = self._plain(table, "row", None).astype(np.int64, copy=False)
        y = self._plain(table, "y", row)
        if self.dataset.task == "classification":
            wrong = np.flatnonzero((y < 0) | (y >= len(self.dataset.classes)))
            if len(wrong):
                raise self._bad(
                    f"label {int(y[wrong[0]])} is not one of the {len(self.dataset.classes)} classes", row[wrong[0]]
                )
            y = y.astype(np.int64)
        elif not np.isfinite(y).all():
            index = int(np.flatnonzero(~np.isfinite(y))[0])
            raise self._bad(f"the target is {y[index]}", row[index])
        # Nulls and strings are checked by the split rule: it knows what the column is for.
        try:
            extra = {name: table.column(name).to_numpy() for name in self._extra}
        except READ_ERRORS as error:
            raise self._mismatch(f"an extra column holds text that is not UTF-8 ({error})") from None
        return RowLabels(row, y, extra)

    def _plain(self, table: pa.Table, name: str, row: IntArray | None) -> npt.NDArray[Any]:
        """Return a column of numbers. Raises `DataError` if it has nulls."""
        column = table.column(name)
        if column.null_count:
            index = column.is_null().to_numpy().argmax()
            raise self._bad(f"column {name} has no value", None if row is None else row[index])
        return as_numpy(column)

    def _features(self, table: pa.Table, row: IntArray) -> npt.NDArray[Any]:
        width = self.dataset.features
        column = table.column("x")
        lists = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if lists.null_count:
            raise self._bad("column x has no value", row[lists.is_null().to_numpy(zero_copy_only=False).argmax()])
        values = lists.values.slice(lists.offset * width, len(lists) * width)  # flatten imports pyarrow.compute
        if values.null_count:
            index = int(values.is_null().to_numpy(zero_copy_only=False).argmax())
            raise self._bad(f"feature {index % width} has no value", row[index // width])
        x = as_numpy(values).reshape(len(row), width)
        if x.dtype.kind == "f":
            finite = np.isfinite(x)
            if not finite.all():
                index, feature = divmod(int(np.flatnonzero(~finite)[0]), width)
                raise self._bad(f"feature {feature} is {x[index, feature]}", row[index])
        return x

    def _open(self, cache: ShardCache | None) -> BinaryIO:
        """Return the shard's file after its bytes were checked; a damaged copy in the cache is fetched again."""
        files = self.dataset.storage()
        if not files.is_remote:
            return self._checked(files, None)
        cache = cache or ShardCache()
        try:
            return self._checked(files, cache)
        except MismatchError:
            if not cache.drop(self.shard):
                raise
            return self._checked(files, cache)

    def _checked(self, files: Storage, cache: ShardCache | None) -> BinaryIO:
        if cache is None and not files.exists(self.shard.name):
            raise self._mismatch("is not there, but the manifest promises it")
        try:
            stream = files.open(self.shard.name) if cache is None else cache.open(files, self.shard)
        except StorageError:
            if cache is None or files.exists(self.shard.name):
                raise
            raise self._mismatch("is not there, but the manifest promises it") from None
        try:
            self._check_bytes(files.root, stream)
        except BaseException:
            stream.close()
            raise
        return stream

    def _check_bytes(self, root: str, stream: BinaryIO) -> None:
        size = stream.seek(0, io.SEEK_END)
        if size != self.shard.bytes:
            raise self._mismatch(f"{size} bytes long, the manifest says {self.shard.bytes}")
        key = (root, self.shard.name, size, _modified(stream), self.shard.sha256)
        if key not in _VERIFIED:
            stream.seek(0)
            digest = hashlib.sha256()
            while part := stream.read(2**20):
                heartbeat()
                digest.update(part)
            actual = digest.hexdigest()
            if actual != self.shard.sha256:
                raise self._mismatch(f"its SHA-256 is {actual}, the manifest says {self.shard.sha256}")
            _VERIFIED.add(key)
        stream.seek(0)

    def _check_metadata(self) -> None:
        schema, promised = self._file.schema_arrow, self.dataset.schema
        for field in promised:
            count = schema.names.count(field.name)
            actual = schema.field(field.name).type if count == 1 else "there twice" if count else "missing"
            if not _is_same_type(actual, field.type):
                raise self._mismatch(f"column {field.name} is {actual}, the manifest says {field.type}")
        for name in self._extra:
            if name not in self.dataset.columns:
                raise ConfigError(
                    f"the dataset keeps no column {name!r}; kept: {', '.join(self.dataset.columns) or 'none'}",
                    hint=f"import it again with --keep {name}",
                )
        metadata = self._file.metadata
        for what, number, expected in (
            ("rows", metadata.num_rows, self.shard.rows),
            ("row groups", metadata.num_row_groups, self.shard.row_groups),
        ):
            if number != expected:
                raise self._mismatch(f"{number} {what}, the manifest says {expected}")
        groups = tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
        if sum(groups) != metadata.num_rows or min(groups, default=0) < 0:
            raise self._mismatch(f"{metadata.num_rows} rows, its row groups say {sum(groups)}")
        if metadata.num_rows > self.shard.bytes * MOST_ROWS_A_BYTE:
            raise self._mismatch(f"{metadata.num_rows} rows cannot be in {self.shard.bytes} bytes")
        self.group_rows: tuple[int, ...] = groups

    def _mismatch(self, message: str) -> MismatchError:
        return MismatchError(message, hint=_REPAIR, dataset=self.dataset.address, shard=self.shard.name)

    def _bad(self, message: str, row: np.int64 | None) -> DataError:
        where = None if row is None else int(row)
        return DataError(message, hint=_REPAIR, dataset=self.dataset.address, shard=self.shard.name, row=where)


def label_chunks(dataset: Dataset, extra_columns: Sequence[str] = (), cache: ShardCache | None = None) -> LabelChunks:
    """Return a function that reads the labels of a whole dataset, shard by shard; split rules are fitted to them."""

    def passes() -> Iterator[Labels]:
        for index in range(len(dataset.shards)):
            with ShardReader(dataset, index, extra_columns, cache) as reader:
                for labels in reader.labels():
                    yield Labels(index, labels.row, labels.y, labels.extra)

    return passes


def _modified(stream: BinaryIO) -> int | None:
    """Return the file's modification time in nanoseconds; None if the storage knows none."""
    try:
        return os.fstat(stream.fileno()).st_mtime_ns
    except (OSError, AttributeError):
        return None


def _is_same_type(actual: Any, kind: pa.DataType) -> bool:
    """Return whether types are equal, whatever a list calls its items: writers use ``item`` or ``element``."""
    if isinstance(actual, pa.FixedSizeListType) and isinstance(kind, pa.FixedSizeListType):
        return bool(actual.list_size == kind.list_size and actual.value_type == kind.value_type)
    return bool(actual == kind)
