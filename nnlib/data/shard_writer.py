"""Write a dataset: its shards as Parquet files with row groups of equal size, then its manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from nnlib.data.dataset import MANIFEST, Dataset, Shard, shard_name
from nnlib.storage import Storage
from nnlib.storage.hashed_stream import HashedStream


class ShardWriter:
    """Collects rows into row groups of exactly ``row_group_rows`` rows (the last may be smaller).

    ``classes``: number of classes, 0 for regression. ``rows``, ``row_groups`` and ``class_counts`` count what was
    written.
    """

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
        """Append rows."""
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
        """Write the rows that are left as the last row group."""
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._parquet.write_table(table, row_group_size=self._group)
            self.row_groups += 1
        self._waiting, self._count = [], 0


def write_shards(
    files: Storage, schema: pa.Schema, row_group_rows: int, classes: int, shards: Iterable[Iterable[pa.RecordBatch]]
) -> tuple[Shard, ...]:
    """Write the shards one after another, from the batches of each; a file is durable before the next begins.

    ``classes``: number of classes, 0 for regression.
    """
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
    """Write one shard. It gets its name once all of it is written and ``batches`` ended without an error."""
    name = shard_name(index)
    with files.writing(name) as stream:
        hashed = HashedStream(stream)
        with pq.ParquetWriter(hashed, schema, **_parquet_options(schema)) as parquet:
            writer = ShardWriter(parquet, schema, row_group_rows, classes)
            for batch in batches:
                writer.write(batch)
            writer.flush()
    counts = tuple(int(count) for count in writer.class_counts)
    return Shard(name, writer.rows, writer.row_groups, hashed.bytes, hashed.digest.hexdigest(), counts)


def _parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Return the options of a Parquet writer.

    Whole numbers get a dictionary: without one, Parquet stores uint8 in 4 bytes, half again as large and twice as slow
    to read.
    Floats get none, because they rarely repeat.
    """
    whole = pa.types.is_integer(schema.field("x").type.value_type)
    return {
        "compression": "zstd",
        "use_dictionary": ["x.list.element"] if whole else False,
        "write_statistics": ["row", "y"],
    }


def record_batch(
    schema: pa.Schema, rows: npt.NDArray[np.int64], x: npt.NDArray[Any], y: npt.NDArray[Any], extra: Mapping[str, Any]
) -> pa.RecordBatch:
    """Return a batch of a shard's schema.

    ``rows``: ids, shape (n,). ``x``: shape (n, features). ``y``: shape (n,). ``extra``: the extra columns as Arrow
    arrays.
    """
    flat = pa.array(np.ascontiguousarray(x).reshape(-1))
    arrays = [pa.array(rows), pa.FixedSizeListArray.from_arrays(flat, type=schema.field("x").type), pa.array(y)]
    return pa.RecordBatch.from_arrays([*arrays, *(extra[name] for name in schema.names[3:])], schema=schema)


def features_of(batch: pa.RecordBatch) -> npt.NDArray[Any]:
    """Return column ``x`` of a batch as an array of shape (n, features), without a copy."""
    x = batch.column("x")
    values: npt.NDArray[Any] = x.flatten().to_numpy().reshape(len(batch), x.type.list_size)
    return values


def reorder_rows(batch: pa.RecordBatch, order: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """Return the rows of a batch in the order of their positions in ``order``, shape (n,).

    ``x`` goes through numpy, which is faster than Arrow's take of lists.
    """
    rest = batch.select([name for name in batch.schema.names if name != "x"]).take(pa.array(order))
    extra = {name: rest.column(name) for name in rest.schema.names[2:]}
    x = features_of(batch)[order]
    return record_batch(batch.schema, rest.column("row").to_numpy(), x, rest.column("y").to_numpy(), extra)


def write_manifest(files: Storage, dataset: Dataset) -> None:
    """Write the manifest of a dataset. It is the last file: from here on there is a dataset."""
    files.write(MANIFEST, json.dumps(dataset.to_json(), indent=1).encode() + b"\n")


def default_row_group_rows(row_bytes: int) -> int:
    """Return the rows of a row group whose ``x`` has about 4 MiB, between 256 and 65,536."""
    return min(65_536, max(256, (4 << 20) // max(1, row_bytes)))
