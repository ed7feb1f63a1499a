"""Import files, or arrays in memory, as a dataset: three passes whose memory does not grow with the input.

1. `survey_tables` reads the input once into a buffer and collects classes, categories and means.
2. Rows are encoded and partitioned by shard, and within a shard by ranges (buckets) of a keyed hash.
3. Each bucket is sorted by that hash and appended to its shard: a seeded shuffle of the whole shard.

The bytes written depend on the rows, the options and the seed alone, not on memory or on how the input is chunked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.errors import UsageError
from nnlib.data.dataset import Dataset
from nnlib.data.dataset_output import DatasetOutput, dataset_output
from nnlib.data.importing.channels import with_channels_first
from nnlib.data.importing.column_choice import choose_columns
from nnlib.data.importing.format_registry import is_builtin, open_tables
from nnlib.data.importing.formats.arrays import ArrayColumn, array_table, is_scipy_sparse
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.import_plan import make_plan
from nnlib.data.importing.local_copies import local_copies
from nnlib.data.importing.partitioner import ShardPartitioner, encode_rows
from nnlib.data.importing.source_files import input_addresses
from nnlib.data.importing.spill_buffer import SpillBuffer
from nnlib.data.importing.survey import survey_tables
from nnlib.data.shard_writer import write_manifest, write_shards
from nnlib.storage import Storage, storage
from nnlib.storage.outputs import refuse_overlap

Progress = Callable[[int, int | None], None]
"""Called with the number of rows done and the number of all rows (None while it is not known)."""


def import_dataset(
    sources: Sequence[str],
    output: str,
    options: ImportOptions,
    progress: Progress | None = None,
) -> Dataset:
    """Import files of one format, or one built-in dataset, to the address ``output``.

    Raises `UsageError` for options that do not fit the data, for an output that is a source, holds one or lies in one,
    and for one that holds files of others, and `DataError` for bad data; then no file is left.
    """
    options.check()
    read = [options.folder] if options.folder else []
    refuse_overlap(output, read if is_builtin(sources) else [*read, *input_addresses(sources, options.label)])
    with (
        dataset_output(storage(output), options.shards, overwrite=options.overwrite) as target,
        local_copies(sources) as paths,
    ):
        return _import(open_tables(paths, options.reading), target, output, options, progress)


def from_arrays(X: Any, y: npt.ArrayLike, output: str, **options: Any) -> Dataset:
    """Write arrays in memory as a dataset at the address ``output``.

    ``X``: numbers, shape (n, ...), an array, a sparse matrix of scipy, or an `ArrayColumn`; those two are made dense
    block by block. ``y``: labels or targets, shape (n,). ``options`` are those of `ImportOptions`.
    Raises as `import_dataset` does.
    """
    chosen = ImportOptions(**options)
    if is_scipy_sparse(X):
        X = ArrayColumn.of_sparse(X)
    x = X if isinstance(X, ArrayColumn) else ArrayColumn.of(np.asarray(X))
    arrays = with_channels_first("X", {"x": x, "y": ArrayColumn.of(np.asarray(y))}, ["x"], chosen)
    return import_tables([array_table("arrays", arrays, ["x"], "y")], output, chosen)


def import_tables(
    tables: Sequence[Table],
    output: str,
    options: ImportOptions,
    progress: Progress | None = None,
) -> Dataset:
    """Import opened tables with the same columns to the address ``output``. Raises as `import_dataset` does."""
    options.check()
    with dataset_output(storage(output), options.shards, overwrite=options.overwrite) as target:
        return _import(tables, target, output, options, progress)


def _import(
    tables: Sequence[Table],
    target: DatasetOutput,
    output: str,
    options: ImportOptions,
    progress: Progress | None,
) -> Dataset:
    files = target.files
    choice = choose_columns(tables[0], options)
    total = sum(table.rows or 0 for table in tables) if all(table.rows for table in tables) else None
    parent = _buffer_folder(files)
    report = progress or (lambda done, total: None)
    with (
        SpillBuffer(parent, options.buffer_bytes) as surveyed,
        SpillBuffer(parent, options.buffer_bytes) as partitions,
    ):
        survey = survey_tables(tables, choice, surveyed, lambda rows: report(rows // 2, total))
        if survey.is_rounded and survey.needs_float64.any():
            surveyed.clear()
            survey_tables(tables, replace(choice, dtype="float64"), surveyed)
        plan = make_plan(tables[0], choice, survey, options)
        partitioner = ShardPartitioner(plan)
        partitioner.partition(encode_rows(surveyed, plan, survey.origins), partitions)
        with target.replacing():
            done = survey.rows

            def reported(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
                nonlocal done
                for batch in batches:
                    yield batch
                    done += len(batch)
                    report(done // 2, survey.rows)

            shards = (reported(partitioner.sorted_rows(index, partitions)) for index in range(plan.shards))
            written = write_shards(files, plan.schema, plan.row_group_rows, len(plan.encoding.classes), shards)
            dataset = plan.dataset(output, written)
            write_manifest(files, dataset)
    return dataset


def _buffer_folder(files: Storage) -> Path | None:
    """Return the folder for temporary files: the dataset's parent, whose disk must have the space anyway. Make it if it
    is missing; None if the dataset is not on this machine."""
    path = files.local_path()
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write there: {error}", output=files.root) from None
    return path.parent
