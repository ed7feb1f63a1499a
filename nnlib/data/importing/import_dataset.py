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

from nnlib.core.errors import DataError, UsageError
from nnlib.data.dataset import MANIFEST, Dataset, Task
from nnlib.data.encoding import Encoding, FeatureColumn
from nnlib.data.importing.format_registry import open_tables
from nnlib.data.importing.formats.arrays import ArrayColumn, array_table
from nnlib.data.importing.formats.table import MOST_NUMBERS, ReadOptions, Table
from nnlib.data.importing.import_plan import Dealer, ImportPlan, class_rows, encoded
from nnlib.data.importing.local_copies import local_copies
from nnlib.data.importing.spill_buffer import Spool
from nnlib.data.importing.survey import Choice, Survey, survey
from nnlib.data.shard_writer import check_free, default_row_group_rows, replacing, write_shards
from nnlib.storage import LocalStorage, Storage, storage

Progress = Callable[[int, int | None], None]
"""Called with rows done and rows in all (None while unknown)."""

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
    check_options(options)
    choice = choose(tables[0], options)
    total = sum(table.rows or 0 for table in tables) if all(table.rows for table in tables) else None
    beside = _beside(files)
    tell = progress or (lambda done, total: None)
    with Spool(beside, options.spool_bytes) as raw, Spool(beside, options.spool_bytes) as dealt:
        found = survey(tables, choice, raw, lambda rows: tell(rows // 2, total))
        plan = plan_import(tables[0], choice, found, options)
        dealer = Dealer(plan)
        dealer.deal(encoded(raw, plan, found.places), dealt)
        with replacing(files):
            done = found.rows

            def counted(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
                nonlocal done
                for batch in batches:
                    yield batch
                    done += len(batch)
                    tell(done // 2, found.rows)

            shards = (counted(dealer.shard(index, dealt)) for index in range(plan.shards))
            written = write_shards(files, plan.schema, plan.row_group_rows, len(plan.encoding.classes), shards)
            dataset = plan.dataset(output, written)
            write_manifest(files, dataset)
    return dataset


def check_options(options: ImportOptions) -> None:
    """Refuse options that fit no data."""
    if options.shards < 1 or (options.row_group_rows or 1) < 1:
        raise UsageError("shards and row_group_rows must be at least 1")


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


def plan_import(table: Table, choice: Choice, found: Survey, options: ImportOptions) -> ImportPlan:
    """What the first pass over all files leads to; ``table`` is the first of them. Raises `DataError` and `UsageError`
    where that is no dataset."""
    if options.shards > found.rows:
        raise UsageError(f"--shards {options.shards} is more than the {found.rows} rows")
    task = found.label.task(options.task)
    if task == "regression" and (options.by_label or options.label_map):
        raise UsageError("--by-label and --map-label need classes, but the target is numeric (--task regression)")
    encoding = _encoding(choice, found, task, options)
    row_bytes = encoding.features * np.dtype(encoding.dtype).itemsize
    return ImportPlan(
        choice=choice,
        encoding=encoding,
        task=task,
        shape=_shape(options, encoding, table),
        kept=found.kept,
        rows=found.rows,
        shards=options.shards,
        seed=options.seed,
        row_group_rows=options.row_group_rows or default_row_group_rows(row_bytes),
        name=options.name or _name(table.file),
        class_rows=class_rows(encoding, found.label.counts) if options.by_label else None,
    )


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
