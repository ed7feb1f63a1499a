"""Describe a dataset, and verify that it is what its manifest says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nnlib.core.errors import DataError, StorageError
from nnlib.core.progress import Advance, progressing
from nnlib.data.arrow import READ_ERRORS
from nnlib.data.dataset import MOST_ROWS_A_BYTE, Dataset, Shard
from nnlib.data.shard_writer import features_of

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a dataset. ``row``: the id of the row at fault, if it is one."""

    shard: str
    message: str
    row: int | None = None

    def __str__(self) -> str:
        return f"{self.shard}{'' if self.row is None else f', row {self.row}'}: {self.message}"


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return what ``nnjobs data info`` shows, as JSON values."""
    return {
        "name": dataset.name,
        "address": dataset.address,
        "task": dataset.task,
        "rows": dataset.rows,
        "shape": list(dataset.shape),
        "features": dataset.features,
        "x_dtype": dataset.x_dtype,
        "x_scale": dataset.x_scale,
        "x_offset": dataset.x_offset,
        "classes": dict(zip(dataset.classes, dataset.class_counts, strict=True)),
        "columns": dict(dataset.columns),
        **_text_facts(dataset),
        "row_group_rows": dataset.row_group_rows,
        "bytes": sum(shard.bytes for shard in dataset.shards),
        "fingerprint": dataset.fingerprint,
        "shards": [
            {
                "name": shard.name,
                "rows": shard.rows,
                "row_groups": shard.row_groups,
                "bytes": shard.bytes,
                "class_counts": list(shard.class_counts),
            }
            for shard in dataset.shards
        ],
    }


def _text_facts(dataset: Dataset) -> dict[str, Any]:
    text = dataset.text
    if text is None:
        return {}
    facts = {"length": text.length, "vocabulary": text.vocabulary, "template": text.template, "end": text.end}
    return {"text": {**facts, "counted": list(text.counted), "pad": text.pad}}


def verify(dataset: Dataset) -> list[Problem]:
    """Read a whole dataset, a row group at a time, and return all that is wrong with it.

    It checks the hash, schema, counts, labels and finite values of each shard, and that the row ids of all shards
    together are 0 to rows - 1, each once. That takes one bit of memory per row.
    """
    problems: list[Problem] = []
    files = dataset.storage()
    size = sum(files.size(shard.name) for shard in dataset.shards if files.exists(shard.name))
    if dataset.rows > size * MOST_ROWS_A_BYTE:
        return [Problem("all shards", f"{dataset.rows} rows cannot be in {size} bytes")]
    seen = np.zeros((dataset.rows + 7) // 8, np.uint8)
    before = 0
    with progressing("checking", dataset.rows) as advance:
        for shard in dataset.shards:
            try:
                problems += _check_shard(dataset, shard, seen, partial(_advance, advance, before))
            except (DataError, StorageError, *READ_ERRORS) as error:
                problems.append(Problem(shard.name, f"is not readable: {error}"))
            before += shard.rows
    if not problems:
        count = int(np.unpackbits(seen).sum(dtype=np.int64))
        if count != dataset.rows:
            missing = int((np.unpackbits(seen, bitorder="little") == 0).argmax())
            problems.append(Problem("all shards", f"{dataset.rows - count} row ids are missing", missing))
    return problems


def _advance(advance: Advance, before: int, rows: int) -> None:
    advance(before + rows)


def _check_shard(
    dataset: Dataset, shard: Shard, seen: np.ndarray[Any, Any], advance: Callable[[int], None]
) -> Iterator[Problem]:
    files = dataset.storage()
    digest = hashlib.sha256()
    with files.open(shard.name) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
        if digest.hexdigest() != shard.sha256:
            yield Problem(shard.name, f"sha256 is {digest.hexdigest()}, the manifest says {shard.sha256}")
        stream.seek(0)
        parquet = pq.ParquetFile(stream)
        if not parquet.schema_arrow.equals(dataset.schema):
            yield Problem(shard.name, "its columns are not those of the manifest")
            return
        if parquet.num_row_groups != shard.row_groups:
            yield Problem(shard.name, f"has {parquet.num_row_groups} row groups, the manifest says {shard.row_groups}")
        rows = 0
        counts = np.zeros(len(dataset.classes), np.int64)
        for group in range(parquet.num_row_groups):
            for batch in parquet.iter_batches(dataset.row_group_rows, [group], use_threads=False):
                rows += len(batch)
                yield from _check_batch(dataset, shard, batch, seen, counts)
                advance(rows)
        if rows != shard.rows:
            yield Problem(shard.name, f"has {rows} rows, the manifest says {shard.rows}")
        if tuple(counts) != shard.class_counts:
            yield Problem(shard.name, f"has class counts {counts.tolist()}, the manifest {list(shard.class_counts)}")


def _check_batch(
    dataset: Dataset, shard: Shard, batch: pa.RecordBatch, seen: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]
) -> Iterator[Problem]:
    rows = batch.column("row").to_numpy()
    x, y = features_of(batch), batch.column("y").to_numpy()
    if x.dtype.kind == "f":
        for row, column in np.argwhere(~np.isfinite(x))[:1]:
            name = dataset.encoding.feature_names[column]
            yield Problem(shard.name, f"feature {name} is {x[row, column]}", int(rows[row]))
    if dataset.classes:
        outside = (y < 0) | (y >= len(dataset.classes))
        counts += np.bincount(y[~outside], minlength=len(counts))
        what = f"outside the {len(dataset.classes)} classes"
    else:
        outside = ~np.isfinite(y)
        what = "not finite"
    for index in np.flatnonzero(outside)[:1]:
        yield Problem(shard.name, f"label {y[index]} is {what}", int(rows[index]))
    inside = (rows >= 0) & (rows < dataset.rows)
    for index in np.flatnonzero(~inside)[:1]:
        yield Problem(shard.name, f"row id is outside 0 to {dataset.rows - 1}", int(rows[index]))
    ids, repeats = np.unique(rows[inside], return_counts=True)
    bits = (1 << (ids & 7)).astype(np.uint8)
    twice = (repeats > 1) | (seen[ids >> 3] & bits != 0)
    for index in np.flatnonzero(twice)[:1]:
        yield Problem(shard.name, "row id occurs twice", int(ids[index]))
    np.bitwise_or.at(seen, ids >> 3, bits)
