"""Raw files -> a dataset, in three passes whose memory does not grow with the input.

1. `survey` reads the sources once into a spool and learns classes, categories and means.
2. Rows are encoded and dealt to shards, and within a shard to buckets by ranges of a keyed hash.
3. Each bucket is sorted by that hash and appended to its shard: a seeded shuffle of the whole shard.

The bytes written depend on the rows, the options and the seed alone, not on memory or on how the source is chunked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.data.columns import Column, Place
from nnlib.data.dataset import MANIFEST, Dataset, Task, shard_schema
from nnlib.data.dealing import LabelDealer, bucket_of, deal, order_hash
from nnlib.data.encoding import Encoding, FeatureColumn
from nnlib.data.fetching import local_copies
from nnlib.data.importers.arrays import ArrayColumn, array_table
from nnlib.data.importers.table import MOST_NUMBERS, ReadOptions, Table, chunk_rows
from nnlib.data.sources import open_tables
from nnlib.data.spool import Spool
from nnlib.data.survey import Choice, Survey, survey
from nnlib.data.writing import (
    check_free,
    default_row_group_rows,
    matrix,
    record_batch,
    reordered,
    replacing,
    write_shards,
)
from nnlib.errors import DataError, UsageError
from nnlib.storage import LocalStorage, Storage, storage

Progress = Callable[[int, int | None], None]
"""Called with rows done and rows in all (None while unknown)."""

BUCKET_BYTES = 16 << 20
"""Raw bytes sorted at a time; a process holds several times this."""
SPOOL_BYTES = 32 << 20
PIXEL_SCALE = 1 / 255


@dataclass(frozen=True)
class ImportOptions:
    """How to import; see `nnjobs data import --help`. Columns are given by name or by number (0 first, -1 last).

    ``classes`` are all the classes there are, in index order, where the rows at hand may lack some; none: those found.
    """

    label: str | None = None
    shards: int = 1
    features: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    nulls: Literal["error", "mean"] = "error"
    task: Literal["auto", "classification", "regression"] = "auto"
    dtype: Literal["auto", "float32", "uint8"] = "auto"
    shape: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()
    label_map: Mapping[str, str] = field(default_factory=dict)
    by_label: bool = False
    seed: int = 0
    row_group_rows: int | None = None
    name: str | None = None
    format: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    overwrite: bool = False
    spool_bytes: int = SPOOL_BYTES


def import_dataset(
    sources: Sequence[str], output: str, options: ImportOptions, progress: Progress | None = None
) -> Dataset:
    """Import raw files (or one built-in data set) to the address ``output``.

    Raises `UsageError` for options that do not fit the data and `DataError` for bad data; then nothing is left.
    """
    check_free(storage(output), options.overwrite)
    read = ReadOptions(options.format, options.delimiter, options.header, options.features, options.label)
    with local_copies(sources) as local:
        return import_tables(open_tables(local, read), output, options, progress)


def from_arrays(X: npt.ArrayLike, y: npt.ArrayLike, output: str, **options: Any) -> Dataset:
    """Write arrays in memory as a dataset: ``X`` (n, ...) numbers, ``y`` (n,); keywords as in `ImportOptions`."""
    chosen = ImportOptions(**options)
    check_free(storage(output), chosen.overwrite)
    arrays = {"x": ArrayColumn.of(np.asarray(X)), "y": ArrayColumn.of(np.asarray(y))}
    return import_tables([array_table("arrays", arrays, ["x"], "y")], output, chosen)


def import_tables(
    tables: Sequence[Table], output: str, options: ImportOptions, progress: Progress | None = None
) -> Dataset:
    """Import opened tables of equal columns."""
    files = storage(output)
    if options.shards < 1 or (options.row_group_rows or 1) < 1:
        raise UsageError("shards and row_group_rows must be at least 1")
    choice = choose(tables[0], options)
    total = sum(table.rows or 0 for table in tables) if all(table.rows for table in tables) else None
    beside = _beside(files)
    tell = progress or (lambda done, total: None)
    with Spool(beside, options.spool_bytes) as raw, Spool(beside, options.spool_bytes) as dealt:
        found = survey(tables, choice, raw, lambda rows: tell(rows // 2, total))
        if options.shards > found.rows:
            raise UsageError(f"--shards {options.shards} is more than the {found.rows} rows")
        task = found.label.task(options.task)
        if task == "regression" and (options.by_label or options.label_map):
            raise UsageError("--by-label and --map-label need classes, but the target is numeric (--task regression)")
        encoding = _encoding(choice, found, task, options)
        shape = _shape(options, encoding, tables[0])
        schema = shard_schema(task, encoding.dtype, encoding.features, found.kept)
        row_bytes = encoding.features * np.dtype(encoding.dtype).itemsize
        dealer = _Dealer(found, encoding, options, row_bytes)
        dealer.deal(_encoded(raw, choice, found, encoding, schema), dealt)
        group = options.row_group_rows or default_row_group_rows(row_bytes)
        with replacing(files):
            done = found.rows

            def counted(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
                nonlocal done
                for batch in batches:
                    yield batch
                    done += len(batch)
                    tell(done // 2, found.rows)

            shards = (counted(dealer.shard(index, dealt)) for index in range(options.shards))
            written = write_shards(files, schema, group, len(encoding.classes), shards)
            dataset = Dataset(
                address=output,
                name=options.name or _name(tables[0].file),
                task=task,
                shape=shape,
                features=encoding.features,
                x_dtype=encoding.dtype,
                x_scale=encoding.scale,
                x_offset=encoding.offset,
                classes=encoding.classes,
                rows=found.rows,
                row_group_rows=group,
                columns=found.kept,
                shards=written,
                encoding=encoding,
            )
            write_manifest(files, dataset)
    return dataset


def write_manifest(files: Storage, dataset: Dataset) -> None:
    """The last step: from here on there is a dataset."""
    files.write(MANIFEST, json.dumps(dataset.to_json(), indent=1).encode() + b"\n")


def choose(table: Table, options: ImportOptions) -> Choice:
    """Resolve the options' columns against those of the table."""
    wanted = options.label if options.label in table.columns or table.label is None else table.label
    if wanted is None:
        shown = ", ".join(table.columns[:20]) + (", ..." if len(table.columns) > 20 else "")
        raise UsageError("say with --label which column is the label", hint=f"columns: {shown}", file=table.file)
    label = table.column(wanted, "--label")
    keep = tuple(dict.fromkeys([*(table.column(name, "--keep") for name in options.keep), *table.kept]))
    categorical = {table.column(name, "--categorical") for name in options.categorical}
    for name in keep:
        if name in ("row", "x", "y") or name in table.shapes:
            raise UsageError(f"--keep {name}: a kept column cannot be a vector, nor be named row, x or y")
    if options.features:
        features = [table.column(name, "--features") for name in options.features]
    else:
        features = [name for name in table.features if name != label] or [
            name for name in table.columns if name != label and name not in keep
        ]
    features += [name for name in table.columns if name in categorical and name not in features]
    if not features or label in features or len(set(features)) < len(features):
        raise UsageError("the features must be one or more columns, each once, and not the label", file=table.file)
    columns = []
    for name in features:
        if name in categorical and name in table.shapes:
            raise UsageError(f"--categorical {name}: the column is a vector", file=table.file)
        kind: Any = "categorical" if name in categorical else "vector" if name in table.shapes else "numeric"
        columns.append(FeatureColumn(name, kind, math.prod(table.shapes.get(name, ()))))
    if (width := sum(column.width for column in columns)) > MOST_NUMBERS:
        raise DataError(f"a row has {width:,} numbers, it may have 1 to {MOST_NUMBERS:,}", file=table.file)
    pixels = all(column.kind == "vector" and table.types.get(column.name) == "uint8" for column in columns)
    dtype = options.dtype if options.dtype != "auto" else "uint8" if pixels else "float32"
    if dtype == "uint8" and options.nulls == "mean" and options.dtype == "uint8":
        raise UsageError("--dtype uint8 and --nulls mean exclude each other: a mean is no whole number")
    if dtype == "uint8" and categorical:
        raise UsageError("--dtype uint8 and --categorical exclude each other")
    fill = options.nulls == "mean" and dtype == "float32"  # bytes have no missing values
    return Choice(label, tuple(columns), keep, dtype, fill)


def _encoding(choice: Choice, found: Survey, task: Task, options: ImportOptions) -> Encoding:
    label_map = {str(old): str(new) for old, new in options.label_map.items()}
    return Encoding(
        found.features(choice),
        choice.label,
        found.label.classes(label_map, options.classes) if task == "classification" else (),
        label_map,
        choice.dtype,
        PIXEL_SCALE if choice.dtype == "uint8" else 1.0,
    )


def _shape(options: ImportOptions, encoding: Encoding, table: Table) -> tuple[int, ...]:
    if options.shape is None:
        only = encoding.columns[0].name if len(encoding.columns) == 1 else None
        return table.shapes.get(only, (encoding.features,)) if only else (encoding.features,)
    if math.prod(options.shape) != encoding.features:
        raise UsageError(f"--shape {'x'.join(map(str, options.shape))}: a row has {encoding.features} features")
    return options.shape


def _encoded(
    raw: Spool, choice: Choice, found: Survey, encoding: Encoding, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The spooled rows as batches of the shards' schema."""
    size = chunk_rows(encoding.features * 8)  # one-hot columns are wider than what was spooled
    first = 0
    for place, spooled in zip(found.places, raw.take(0), strict=True):
        for start in range(0, len(spooled), size):
            batch = spooled.slice(start, size)
            here = Place(place.file, place.row + start)
            rows = np.arange(first, first + len(batch), dtype=np.int64)
            x = encoding.stored(_columns(batch, choice), here)
            y = encoding.labels(batch.column("label"), here)
            kept = {name: batch.column(f"kept {name}").cast(schema.field(name).type) for name in found.kept}
            yield record_batch(schema, rows, x, y, kept)
            first += len(batch)


def _columns(batch: pa.RecordBatch, choice: Choice) -> dict[str, Column]:
    """The feature columns of a spooled batch by their raw names."""
    columns: dict[str, Column] = {name: batch.column(f"text {name}") for name in choice.categorical}
    dense = matrix(batch) if "x" in batch.schema.names else np.empty((len(batch), 0))
    start = 0
    for column in choice.features:
        if column.kind != "categorical":
            columns[column.name] = dense[:, start : start + column.width]
            start += column.width
    return columns


class _Dealer:
    """Rows -> piles (one per shard and bucket) -> the shuffled rows of a shard."""

    def __init__(self, found: Survey, encoding: Encoding, options: ImportOptions, row_bytes: int) -> None:
        self._seed = options.seed
        self._shards = options.shards
        self._by_label: LabelDealer | None = None
        if options.by_label:
            counts = dict.fromkeys(encoding.classes, 0)
            for name, count in found.label.counts.items():
                counts[encoding.class_of(name)] += count
            self._by_label = LabelDealer(list(counts.values()), options.shards)
        largest = math.ceil(found.rows / options.shards)
        self._buckets = math.ceil(largest * (row_bytes + 16 + 32 * len(found.kept)) / BUCKET_BYTES)

    def deal(self, batches: Iterator[pa.RecordBatch], piles: Spool) -> None:
        for batch in batches:
            rows = batch.column("row").to_numpy()
            if self._by_label is not None:
                shards = self._by_label.deal(batch.column("y").to_numpy())
            else:
                shards = deal(rows, self._shards, self._seed)
            pile = shards * self._buckets + bucket_of(order_hash(rows, self._seed), self._buckets)
            order = np.argsort(pile, kind="stable")
            ordered, pile = reordered(batch, order), pile[order]
            starts = np.flatnonzero(np.diff(pile, prepend=-1))
            for start, stop in zip(starts, [*starts[1:], len(pile)], strict=True):
                piles.put(int(pile[start]), ordered.slice(start, stop - start))

    def shard(self, index: int, piles: Spool) -> Iterator[pa.RecordBatch]:
        for bucket in range(self._buckets):
            batches = list(piles.take(index * self._buckets + bucket))
            if not batches:
                continue
            batch = pa.concat_batches(batches)
            batches.clear()
            rows = batch.column("row").to_numpy()
            yield reordered(batch, np.argsort(order_hash(rows, self._seed)))


def _beside(files: Storage) -> Path | None:
    """Temporary files go to the disk that must hold the dataset anyway; it is created if need be."""
    if not isinstance(files, LocalStorage):
        return None
    try:
        files.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write there: {error}", output=files.root) from None
    return files.path.parent


def _name(file: str) -> str:
    return Path(file).name.partition(".")[0] or "dataset"
