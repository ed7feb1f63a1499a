"""Writing a dataset: shards as Parquet with fixed row groups, hashed on the way, then the manifest."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from nnlib.core.errors import UsageError
from nnlib.data.dataset import MANIFEST, Shard, shard_name
from nnlib.storage import Storage


class _Hashed:
    """A stream that counts and hashes what passes to another one. Parquet writes forward only."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The stream below is closed by its owner."""


class ShardWriter:
    """Collects rows into row groups of exactly ``row_group_rows`` (the last may be smaller)."""

    def __init__(self, parquet: pq.ParquetWriter, schema: pa.Schema, row_group_rows: int, classes: int) -> None:
        self._parquet = parquet
        self._schema = schema
        self._group = row_group_rows
        self._waiting: list[pa.RecordBatch] = []
        self._count = 0
        self.rows = 0
        self.row_groups = 0
        self.class_counts = np.zeros(classes, np.int64)

    def write(self, batch: pa.RecordBatch) -> None:
        if len(self.class_counts):
            self.class_counts += np.bincount(batch.column("y").to_numpy(), minlength=len(self.class_counts))
        self.rows += len(batch)
        start = 0
        while len(batch) - start >= self._group - self._count:
            take = self._group - self._count
            self._waiting.append(batch.slice(start, take))
            self.flush()
            start += take
        if start < len(batch):
            self._waiting.append(batch.slice(start))
            self._count += len(batch) - start

    def flush(self) -> None:
        """End the row group."""
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._parquet.write_table(table, row_group_size=self._group)
            self.row_groups += 1
        self._waiting, self._count = [], 0


def write_shards(
    files: Storage, schema: pa.Schema, row_group_rows: int, classes: int, shards: Iterable[Iterable[pa.RecordBatch]]
) -> tuple[Shard, ...]:
    """Write the batches of each shard in turn; every file is durable before the next begins."""
    return tuple(
        write_shard(files, index, schema, row_group_rows, classes, batches) for index, batches in enumerate(shards)
    )


def write_shard(
    files: Storage,
    index: int,
    schema: pa.Schema,
    row_group_rows: int,
    classes: int,
    batches: Iterable[pa.RecordBatch],
) -> Shard:
    """Write one shard; it has its name when all of it is there and ``batches`` ended without an error."""
    name = shard_name(index)
    with files.writing(name) as stream:
        hashed = _Hashed(stream)
        with pq.ParquetWriter(hashed, schema, **_parquet_options(schema)) as parquet:
            writer = ShardWriter(parquet, schema, row_group_rows, classes)
            for batch in batches:
                writer.write(batch)
            writer.flush()
    counts = tuple(int(count) for count in writer.class_counts)
    return Shard(name, writer.rows, writer.row_groups, hashed.bytes, hashed.digest.hexdigest(), counts)


def _parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Bytes get a dictionary: Parquet's own uint8 is 4 bytes wide, half again as large and twice as slow to read.

    Floats get none, for they rarely repeat.
    """
    pixels = schema.field("x").type.value_type == pa.uint8()
    return {
        "compression": "zstd",
        "use_dictionary": ["x.list.element"] if pixels else False,
        "write_statistics": ["row", "y"],
    }


def record_batch(
    schema: pa.Schema, rows: npt.NDArray[np.int64], x: npt.NDArray[Any], y: npt.NDArray[Any], kept: Mapping[str, Any]
) -> pa.RecordBatch:
    """A batch of a shard's schema: ``rows`` (n,), ``x`` (n, features), ``y`` (n,), kept columns as Arrow arrays."""
    flat = pa.array(np.ascontiguousarray(x).reshape(-1))
    arrays = [pa.array(rows), pa.FixedSizeListArray.from_arrays(flat, type=schema.field("x").type), pa.array(y)]
    return pa.RecordBatch.from_arrays([*arrays, *(kept[name] for name in schema.names[3:])], schema=schema)


def matrix(batch: pa.RecordBatch) -> npt.NDArray[Any]:
    """The ``x`` of a batch as an array of shape (n, features), without a copy."""
    x = batch.column("x")
    values: npt.NDArray[Any] = x.flatten().to_numpy().reshape(len(batch), x.type.list_size)
    return values


def reordered(batch: pa.RecordBatch, order: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """The batch's rows in another order. ``x`` goes through numpy: faster than Arrow's take of lists."""
    rest = batch.select([name for name in batch.schema.names if name != "x"]).take(pa.array(order))
    kept = {name: rest.column(name) for name in rest.schema.names[2:]}
    x = matrix(batch)[order]
    return record_batch(batch.schema, rest.column("row").to_numpy(), x, rest.column("y").to_numpy(), kept)


def check_free(files: Storage, overwrite: bool) -> None:
    """Refuse to write over a dataset unless told to."""
    if files.exists(MANIFEST) and not overwrite:
        raise UsageError("there is a dataset already", hint="choose another -o, or add --overwrite", output=files.root)


@contextlib.contextmanager
def replacing(files: Storage) -> Iterator[None]:
    """Clear an old dataset away, manifest first; if the block fails, remove what it wrote too."""
    files.delete(MANIFEST)
    _delete_shards(files)
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            files.delete(MANIFEST)
            _delete_shards(files)
        raise


def _delete_shards(files: Storage) -> None:
    for name in files.names():
        if re.fullmatch(r"part-\d{5,}\.parquet", name):
            files.delete(name)


def default_row_group_rows(row_bytes: int) -> int:
    """Rows of about 4 MiB of ``x``, between 256 and 65,536."""
    return min(65_536, max(256, (4 << 20) // max(1, row_bytes)))
