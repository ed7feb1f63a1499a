"""The texts that mean a missing value.

The rule: in a file of text (CSV), a cell that is one of the usual marks (`USUAL`) is missing, also in quotes and with
spaces around it, whatever its column is for. Files that have types (Parquet, NumPy) say themselves what is missing:
their text never is, unless the user names the marks. Marks that the user names count in files of every format, instead
of the usual ones; those that are numbers count in columns of numbers, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nnlib.data.arrow_types import plain_column
from nnlib.data.columns import Column, Columns, RowOrigin, is_number, to_plain_array
from nnlib.data.importing.formats.table import Role, Table
from nnlib.data.importing.read_options import ReadOptions

EARLIER = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "N/A", "NA", "NULL"),
    *("NaN", "n/a", "nan", "null", "?"),
)
"""The marks of versions that did not store with a dataset how its files were read."""

USUAL = (*EARLIER, "<NA>", "None")
"""The marks of `pandas.read_csv`, and a question mark, as the UCI repository writes it."""


def null_marks(options: ReadOptions) -> tuple[str, ...]:
    """Return the marks that count in a file of text."""
    return USUAL if options.null_values is None else options.null_values


def with_missing(texts: pa.Array, marks: Sequence[str]) -> pa.Array:
    """Return texts with null for each that is a mark, spaces around it aside."""
    if not marks:
        return texts
    is_mark = pc.is_in(pc.utf8_trim_whitespace(texts), value_set=pa.array(marks, pa.string()))
    return pc.if_else(is_mark, pa.scalar(None, texts.type), texts) if pc.any(is_mark).as_py() else texts


def with_named_marks(table: Table, options: ReadOptions) -> Table:
    """Return a table of any format in which the marks that the user names, if any, are missing values."""
    marks = options.null_values
    if not marks or marks == EARLIER:  # those were for text alone
        return table

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        for columns in table.chunks(roles):
            yield {name: _marked(column, marks, name) for name, column in columns.items()}

    return replace(table, chunks=chunks)


def _marked(column: Column, marks: Sequence[str], name: str) -> Column:
    numbers = [float(mark) for mark in marks if mark and is_number(mark)]
    if isinstance(column, np.ndarray):
        if column.dtype.kind in "US":
            return with_missing(to_plain_array(column, name, RowOrigin()), marks)
        is_mark = np.isin(column, numbers) if column.dtype.kind in "iuf" else np.zeros(1, bool)
        if not is_mark.any():
            return column
        if column.ndim == 1:
            return pa.array(column, mask=is_mark)
        return np.where(is_mark, np.nan, column.astype(np.float64))
    plain = plain_column(column)
    if pa.types.is_string(plain.type):
        return with_missing(plain, marks)
    if not (pa.types.is_integer(plain.type) or pa.types.is_floating(plain.type)):
        return column
    is_mark = pc.is_in(plain.cast(pa.float64(), safe=False), value_set=pa.array(numbers, pa.float64()))
    return pc.if_else(is_mark, pa.scalar(None, plain.type), plain)
