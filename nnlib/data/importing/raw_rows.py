"""Raw files read with a dataset's encoding, so that a trained model can score new data as it comes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.errors import DataError
from nnlib.data.columns import Columns, Place
from nnlib.data.encoding import Encoding
from nnlib.data.importing.format_registry import open_tables
from nnlib.data.importing.formats.table import ReadOptions, Role, Table, chunk_rows, length, rechunk
from nnlib.data.importing.local_copies import local_copies

_VALUE: Role = "value"


@dataclass(frozen=True)
class RawChunk:
    """Consecutive rows: ``row`` is the first one's position in the input, ``x`` (n, features) float32 values.

    ``stored`` is ``x`` as a shard would store it, for a model that converts to another dtype than float32.
    ``y`` (n,) holds int32 class indices or float64 targets, or is None if the source has no label column. ``kept``
    holds the columns asked for, as Arrow arrays.
    """

    row: int
    x: npt.NDArray[np.float32]
    y: npt.NDArray[Any] | None
    kept: dict[str, pa.Array]
    stored: npt.NDArray[Any]


def read_raw(
    source: str | Sequence[str],
    encoding: Encoding,
    *,
    keep: Sequence[str] = (),
    chunk: int | None = None,
    format: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
) -> Iterator[RawChunk]:
    """Stream raw files as a model's inputs; about 4 MiB (or ``chunk`` rows) at a time.

    Columns are found by the names they had at import. Where the dataset came from one array of vectors, any array or
    any table with as many numbers a row will do. Raises `DataError` for missing columns, unseen categories or labels.
    """
    sources = [source] if isinstance(source, str) else list(source)
    likely = tuple(column.name for column in encoding.columns)
    options = ReadOptions(format, delimiter, header, likely_features=likely, likely_label=encoding.label)
    with local_copies(sources) as local:
        tables = open_tables(local, options)
        rows = chunk or chunk_rows(encoding.features * 4)
        start = 0
        for table in tables:
            label = _label(table, encoding)
            spread, roles = _roles(table, encoding, label)
            wanted = roles | dict.fromkeys((table.column(name, "kept") for name in keep), _VALUE)
            if label is not None:
                wanted[label] = _VALUE
            first = 0
            for columns in rechunk(iter(table.chunks(wanted)), rows):
                place = Place(table.file, first)
                stored = encoding.stored(_gathered(columns, encoding, spread), place)
                y = None if label is None else replace(encoding, label=label).labels(columns[label], place)
                kept = {name: pa.array(columns[table.column(name, "kept")]) for name in keep}
                yield RawChunk(start + first, encoding.decoded(stored), y, kept, stored)
                first += length(columns)
            start += first


def _label(table: Table, encoding: Encoding) -> str | None:
    """The label column, if this table has one."""
    if encoding.label in table.columns and encoding.label not in table.shapes:
        return encoding.label
    return table.label


def _roles(table: Table, encoding: Encoding, label: str | None) -> tuple[list[str], dict[str, Role]]:
    """The columns that stand in for a lone vector column (if any), and what each column is wanted as."""
    missing = [column.name for column in encoding.columns if column.name not in table.columns]
    lone = encoding.columns[0] if len(encoding.columns) == 1 and encoding.columns[0].kind == "vector" else None
    if lone is not None and (missing or lone.name not in table.shapes):
        names = list(table.features) or [name for name in table.columns if name != label]
        width = sum(math.prod(table.shapes.get(name, ())) for name in names)
        if width != lone.width:
            raise DataError(f"a row has {width} numbers, the model wants {lone.width}", file=table.file)
        return names, dict.fromkeys(names, "number")
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise DataError(
            f"lacks the feature columns {shown}",
            hint="the columns must have the names they had when the dataset was imported",
            file=table.file,
        )
    return [], {column.name: "text" if column.kind == "categorical" else "number" for column in encoding.columns}


def _gathered(columns: Columns, encoding: Encoding, spread: list[str]) -> Columns:
    if not spread:
        return columns
    parts = [np.asarray(columns[name]) for name in spread]
    if len(parts) == 1:
        return {encoding.columns[0].name: parts[0]}
    return {encoding.columns[0].name: np.column_stack(parts)}
