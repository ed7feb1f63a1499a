"""Read new files as the input of a trained model: their columns are encoded as those of its dataset were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from nnlib.core.errors import DataError, UsageError
from nnlib.core.notes import note
from nnlib.data.arrow_types import plain_column
from nnlib.data.columns import Column, RowOrigin, to_plain_array
from nnlib.data.encoding import Encoding
from nnlib.data.importing.column_matching import ColumnMatch, match_columns
from nnlib.data.importing.csv_recognition import recognize_csv
from nnlib.data.importing.format_registry import detect_format, is_builtin, open_as, open_tables, source_files
from nnlib.data.importing.formats.table import Role, Table, rechunk, rows_per_chunk
from nnlib.data.importing.local_copies import local_copies
from nnlib.data.importing.null_values import EARLIER
from nnlib.data.importing.read_options import ReadingChanges, ReadOptions

CHUNK_ROWS = 1024
"""Rows that models compute together. How BLAS rounds a row's last bit depends on the number of rows, so a row predicted
alone may differ there from the same row in a file."""

_MOST_TOGETHER = 16 << 20
"""Numbers of `CHUNK_ROWS` rows, at most."""

_VALUE: Role = "value"


@dataclass(frozen=True)
class RawRows:
    """Consecutive rows of the input, n of them.

    ``row``: the position of the first one in the input, from 0. ``x``: the values of their features, shape (n,
    features), as `Encoding.decode` returns them. ``y``: int32 class indices or float64 targets, shape (n,), as of
    `Encoding.find_labels`: also of labels that ``encoding`` does not have; None if there is no label column.
    ``stored``: the features as a shard would store them. ``kept``: columns that were asked for, n values each.
    ``unknown``: rows by feature column whose category ``encoding`` does not have.
    """

    row: int
    x: npt.NDArray[Any]
    y: npt.NDArray[Any] | None
    stored: npt.NDArray[Any]
    kept: Mapping[str, pa.Array] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)


def read_raw_rows(
    source: str | Sequence[str],
    encoding: Encoding,
    changes: ReadingChanges | None = None,
    keep: Sequence[str] = (),
    shape: tuple[int, ...] = (),
) -> Iterator[RawRows]:
    """Yield the rows of files of any known format, encoded by ``encoding``, about 4 MiB at a time.

    Files are read as those of the dataset were (``encoding.reading``), but for ``changes``, the options that the user
    gives. ``keep`` names columns to return as well (or has their numbers, as the options of an import). Columns must
    have the names they had when the dataset was imported, or none; see `nnlib.data.importing.column_matching`.
    ``shape``: of a row, which images must have; () where it does not matter. What a format itself has to name rows by
    (the files of images) is kept, too. Raises
    `DataError` for missing columns and for categories that ``encoding`` does not have (`Encoding.unknown_category`),
    `UsageError` for columns to keep that are not there.
    """
    sources = [source] if isinstance(source, str) else list(source)
    with local_copies(sources) as paths:
        start = 0
        for table in _open_for(paths, encoding, changes or {}, shape):
            kept = _kept(table, keep)
            first = start
            for raw in matched_rows(table, match_columns(table, encoding, kept), kept):
                start = first + raw.row + len(raw.x)
                yield replace(raw, row=first + raw.row)


def matched_rows(table: Table, match: ColumnMatch, keep: Sequence[str] = ()) -> Iterator[RawRows]:
    """Yield the rows of a table whose columns are those of an encoding by ``match``; positions are those in the table.

    ``keep`` names columns to return as well. Raises `DataError`, naming row and column, for values that
    ``match.encoding`` does not take.
    """
    encoding, label = match.encoding, match.label
    wanted = dict.fromkeys(keep, _VALUE) | match.roles
    first = 0
    for columns in rechunk(iter(table.chunks(wanted)), _rows_together(encoding.features)):
        origin = RowOrigin(table.file, first)
        unknown: Counter[str] = Counter()
        stored = encoding.encode(match.renamed(columns), origin, unknown)
        y = None if label is None else encoding.find_labels(columns[label], origin)
        values = {name: _kept_values(columns[name], name, origin) for name in keep}
        yield RawRows(first, encoding.decode(stored), y, stored, values, unknown)
        first += len(stored)


def _rows_together(features: int) -> int:
    """Return how many rows come together: a multiple of those that models compute together, if these fit in memory, so
    that a file gives the bits that its rows give as an array."""
    rows = rows_per_chunk(features * 4)
    if CHUNK_ROWS * features <= _MOST_TOGETHER:
        rows = max(CHUNK_ROWS, rows - rows % CHUNK_ROWS)
    return rows


def _kept_values(column: Column, name: str, origin: RowOrigin) -> pa.Array:
    """Return a column as it is written with predictions. Times stay times: as texts in their one spelling, those at
    midnight would lack the hour, and readers take one form for a whole column."""
    if isinstance(column, pa.Array):
        values = plain_column(column)
        if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type) or pa.types.is_time(values.type):
            return values
    return to_plain_array(column, name, origin)


def _kept(table: Table, keep: Sequence[str]) -> list[str]:
    """Return the names of the columns to keep. Raises `UsageError` for one that is not there, or is a vector."""
    names = list(dict.fromkeys([*table.key, *(table.column(name, "--id") for name in keep)]))
    for name in names:
        if name in table.shapes:
            raise UsageError(f"--id {name}: the column is a vector", file=table.file)
    return names


def _open_for(paths: Sequence[str], encoding: Encoding, changes: ReadingChanges, shape: tuple[int, ...]) -> list[Table]:
    """Open files as the dataset's files were opened, but for ``changes``."""
    likely = tuple(column.name for column in encoding.columns)
    stored = encoding.reading or ReadOptions(null_values=EARLIER)
    options = replace(
        stored,
        header=None,
        columns=(),
        likely_features=likely,
        likely_label=encoding.label,
        feature_count=encoding.features,
        row_shape=shape,
    )
    options = options.changed(changes)
    if "format" not in changes:
        options = replace(options, format=None)
    if is_builtin(paths):
        return open_tables(paths, options)
    files = source_files(paths, options.format)
    kinds = [options.format or detect_format(file, usual=stored.format) for file in files]
    if "csv" not in kinds:
        return open_tables(files, options)
    if encoding.reading is None:
        note(f"{files[0]}: the model's dataset does not say how its files were read: this one is read by its looks")
    if len(set(kinds)) > 1:
        raise DataError(f"is {kinds[-1]}, but {files[0]} is {kinds[0]}", file=files[-1])
    tables = [open_as("csv", [file], recognize_csv(file, encoding, options, changes))[0] for file in files]
    if not any(table.columns for table in tables):
        raise DataError("the file is empty", file=files[0])
    return tables if len(tables) == 1 else [table for table in tables if table.rows != 0]
