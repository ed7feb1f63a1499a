"""Read new files as the input of a trained model: their columns are encoded as those of its dataset were."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.errors import DataError, UsageError
from nnlib.data.columns import Columns, RowOrigin, to_plain_array
from nnlib.data.encoding import Encoding
from nnlib.data.importing.format_registry import open_tables
from nnlib.data.importing.formats.table import Role, Table, count_rows, rechunk, rows_per_chunk
from nnlib.data.importing.local_copies import local_copies
from nnlib.data.importing.read_options import ReadingChanges, ReadOptions

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
    source: str | Sequence[str], encoding: Encoding, changes: ReadingChanges | None = None, keep: Sequence[str] = ()
) -> Iterator[RawRows]:
    """Yield the rows of files of any known format, encoded by ``encoding``, about 4 MiB at a time.

    Files are read as those of the dataset were (``encoding.reading``), but for ``changes``, the options that the user
    gives. ``keep`` names columns to return as well (or has their numbers, as the options of an import). Columns must
    have the names they had when the dataset was imported. Where that came from one array of vectors, any array or table
    with as many numbers a row is accepted. Raises `DataError` for missing columns and for
    categories that ``encoding`` does not have (`Encoding.unknown_category`), `UsageError` for columns to keep that are
    not there.
    """
    sources = [source] if isinstance(source, str) else list(source)
    likely = tuple(column.name for column in encoding.columns)
    before = encoding.reading or ReadOptions()
    options = replace(before, format=None, likely_features=likely, likely_label=encoding.label).changed(changes)
    options = replace(options, feature_count=encoding.features)
    with local_copies(sources) as paths:
        rows = rows_per_chunk(encoding.features * 4)
        start = 0
        for table in open_tables(paths, options):
            label = _label(table, encoding)
            spread, roles = _roles(table, encoding, label)
            kept = _kept(table, keep)
            wanted = dict.fromkeys(kept, _VALUE) | roles
            wanted = wanted if label is None else wanted | {label: _VALUE}
            first = 0
            for columns in rechunk(iter(table.chunks(wanted)), rows):
                origin = RowOrigin(table.file, first)
                unknown: Counter[str] = Counter()
                stored = encoding.encode(_joined(columns, encoding, spread), origin, unknown)
                y = None if label is None else encoding.find_labels(columns[label], origin)
                values = {name: to_plain_array(columns[name], name, origin) for name in kept}
                yield RawRows(start + first, encoding.decode(stored), y, stored, values, unknown)
                first += count_rows(columns)
            start += first


def _kept(table: Table, keep: Sequence[str]) -> list[str]:
    """Return the names of the columns to keep. Raises `UsageError` for one that is not there, or is a vector."""
    names = list(dict.fromkeys(table.column(name, "--id") for name in keep))
    for name in names:
        if name in table.shapes:
            raise UsageError(f"--id {name}: the column is a vector", file=table.file)
    return names


def _label(table: Table, encoding: Encoding) -> str | None:
    """Return the name of the label column, if this table has one."""
    if encoding.label in table.columns and encoding.label not in table.shapes:
        return encoding.label
    return table.label


def _roles(table: Table, encoding: Encoding, label: str | None) -> tuple[list[str], dict[str, Role]]:
    """Return the columns that together replace an only vector column (none if it is there), and the role of each column
    that is read."""
    missing = [column.name for column in encoding.columns if column.name not in table.columns]
    only = encoding.columns[0] if len(encoding.columns) == 1 and encoding.columns[0].kind == "vector" else None
    if only is not None and (missing or only.name not in table.shapes):
        names = list(table.features) or [name for name in table.columns if name != label]
        width = sum(math.prod(table.shapes.get(name, ())) for name in names)
        if width != only.width:
            raise DataError(f"a row has {width} numbers, the model wants {only.width}", file=table.file)
        return names, dict.fromkeys(names, "number")
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise DataError(
            f"lacks the feature columns {shown}",
            hint="the columns must have the names they had when the dataset was imported",
            file=table.file,
        )
    return [], {column.name: "text" if column.kind == "categorical" else "number" for column in encoding.columns}


def _joined(columns: Columns, encoding: Encoding, spread: list[str]) -> Columns:
    """Return the columns, those named in ``spread`` joined to the only vector column of the encoding."""
    if not spread:
        return columns
    parts = [np.asarray(columns[name]) for name in spread]
    if len(parts) == 1:
        return {encoding.columns[0].name: parts[0]}
    return {encoding.columns[0].name: np.column_stack(parts)}
