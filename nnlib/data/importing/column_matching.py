"""Which columns of a new file are the features and the label that a model knows: by name, or else by position."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnlib.core.errors import DataError
from nnlib.core.listing import listed
from nnlib.core.notes import note
from nnlib.data.columns import Columns
from nnlib.data.encoding import Encoding, FeatureColumn
from nnlib.data.importing.formats.table import Role, Table

_VALUE: Role = "value"


_NUMBERED = re.compile(r"(?:column_?|_c|V|f)?(\d+)")
"""Names that programs give to columns without one: 0, column_0 (polars), column0 (DuckDB), _c0 (Spark), V1 (R), f0."""


@dataclass(frozen=True)
class ColumnMatch:
    """Where the columns of an encoding are in a table.

    - ``encoding``: that of the dataset or, where the table has a column for each feature of a column, the same with a
      numeric column for each of them
    - ``columns``: column of the encoding -> column of the table
    - ``spread``: the columns of the table that together replace all columns of the encoding; none if it has these
    - ``label``: the label column of the table, if it has one
    """

    encoding: Encoding
    columns: dict[str, str]
    spread: tuple[str, ...]
    label: str | None

    @property
    def roles(self) -> dict[str, Role]:
        """The role of each column of the table that is read."""
        kinds: dict[str, Role] = {
            self.columns[column.name]: "text" if column.kind == "categorical" else "number"
            for column in self.encoding.columns
            if column.name in self.columns
        }
        roles = kinds | dict.fromkeys(self.spread, "number")
        return roles if self.label is None else roles | {self.label: _VALUE}

    def renamed(self, columns: Columns) -> Columns:
        """Return the columns of a chunk as those of the encoding."""
        if not self.spread:
            return {name: columns[column] for name, column in self.columns.items()}
        parts = [np.asarray(columns[name]) for name in self.spread]
        matrix = np.column_stack(parts) if len(parts) > 1 else parts[0]
        if len(self.encoding.columns) == 1:
            return {self.encoding.columns[0].name: matrix}
        ends = np.cumsum([column.width for column in self.encoding.columns])[:-1]
        return {
            column.name: part[:, 0] if column.kind == "numeric" else part
            for column, part in zip(self.encoding.columns, np.split(matrix, ends, axis=1), strict=True)
        }


def match_columns(table: Table, encoding: Encoding, others: Sequence[str] = ()) -> ColumnMatch:
    """Find the columns of an encoding in a table.

    Columns with names are found by them; one that becomes several features may be there as a column for each of them,
    under the features' names (``soil=clay``, ``x[0]``). Columns of a CSV file without a header, columns whose names
    only count them (`say_nothing`) and the numbers of an array are found by their position, and a note says so.
    ``others``: columns that are read for something else and, where their number would not fit with them, are no
    features. Raises `DataError` for columns that are missing and for another number of columns.
    """
    label = _label(table, encoding)
    expanded = _expanded(encoding, table)
    by_name = {column.name: column.name for column in expanded.columns}
    missing = [column.name for column in encoding.columns if column.name not in table.columns]
    lacking = [name for name in by_name if name not in table.columns]
    if encoding.is_vector and (lacking or (not missing and encoding.columns[0].name not in table.shapes)):
        return ColumnMatch(encoding, {}, _spread(table, encoding, label, others), label)
    if _goes_by_position(table, encoding, bool(lacking)):
        note(f"{_subject(table)} columns are taken by position, for no names say which they are")
        found = positions(table.columns, encoding)
        if found is None:
            raise _count_error(table, encoding)
        names = {column.name: found[column.name] for column in encoding.columns}
        return ColumnMatch(encoding, names, (), found.get(encoding.label or ""))
    if not lacking:
        return ColumnMatch(expanded, by_name, (), label)
    if not table.shapes and (counted := _by_count(table, encoding)) is not None:
        note(f"{_subject(table)} columns are taken by position, for their names only count them")
        return counted
    if table.shapes and not any(column.kind == "categorical" for column in encoding.columns):
        note(f"{_subject(table)} numbers are taken by position, for no names say which they are")
        return ColumnMatch(encoding, {}, _spread(table, encoding, label, others), label)
    raise lacks_error(table.file, lacking, [name for name in table.columns if name != label])


def say_nothing(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Return whether names only count the columns, from 0 or 1: 0, 1, 2; column_0, column_1; V1, V2.

    To an encoding whose columns, ``wanted``, have some of them they do say something, unless they are bare numbers:
    those count the columns of a file without a header.
    """
    matches = [_NUMBERED.fullmatch(name) for name in names]
    numbers = [int(match[1]) for match in matches if match]
    starts = {name[: match.start(1)] for name, match in zip(names, matches, strict=True) if match}
    if not numbers or len(numbers) < len(names) or len(starts) > 1 or numbers[0] > 1:
        return False
    counting = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return counting and (starts == {""} or not set(names) & set(wanted))


def split_column(column: FeatureColumn, names: Sequence[str]) -> tuple[FeatureColumn, ...]:
    """Return a numeric column for each feature of a column; ``names``: what they are called."""
    fills: list[tuple[float, ...]] = [(value,) for value in column.fill] or [()] * column.width
    return tuple(FeatureColumn(name, fill=fill) for name, fill in zip(names, fills, strict=True))


def _expanded(encoding: Encoding, table: Table) -> Encoding:
    """Return the encoding with columns that are there as their features alone replaced by those."""
    names = set(table.columns)
    columns: list[FeatureColumn] = []
    for column in encoding.columns:
        if column.name not in names and column.kind != "numeric" and names.issuperset(column.feature_names):
            columns += split_column(column, column.feature_names)
        else:
            columns.append(column)
    return encoding if tuple(columns) == encoding.columns else replace(encoding, columns=tuple(columns))


def _by_count(table: Table, encoding: Encoding) -> ColumnMatch | None:
    """Match columns whose names only count them, in order: to the columns of the encoding or, if there are as many, to
    its features. None where the names say something, or are too many or too few."""
    names = [name for name in table.columns if name not in table.row_numbers]
    wanted = [column.name for column in encoding.columns]
    if not say_nothing(names, wanted):
        return None
    if len(names) == len(wanted) and all(column.kind != "vector" for column in encoding.columns):
        return ColumnMatch(encoding, dict(zip(wanted, names, strict=True)), (), None)
    if len(names) != encoding.features:
        return None
    columns = tuple(part for column in encoding.columns for part in split_column(column, column.feature_names))
    features = [column.name for column in columns]
    return ColumnMatch(replace(encoding, columns=columns), dict(zip(features, names, strict=True)), (), None)


def _goes_by_position(table: Table, encoding: Encoding, lacks_names: bool) -> bool:
    """Return whether names cannot say which columns are which: the table or the dataset's input had no header.

    Datasets of earlier versions do not say whether theirs had one: names decide, as they did.
    """
    if encoding.reading is None:
        return False
    has_names = table.reading is None or table.reading.header is not False
    return not has_names or (lacks_names and encoding.reading.header is False and not table.shapes)


def _subject(table: Table) -> str:
    return f"{table.file}: its" if table.file else "the"


def lacks_error(file: str | None, missing: Sequence[str], there: Sequence[str], **where: str) -> DataError:
    """Return the error for a file (or what ``where`` names) without some feature columns; ``there``: those it has."""
    return DataError(
        f"lacks the feature columns {listed(missing)}",
        hint="the columns must have the names they had when the dataset was imported, in any order; "
        f"these are {listed(there) or 'none'}",
        file=file,
        **where,
    )


def positions(columns: Sequence[str], encoding: Encoding) -> dict[str, str] | None:
    """Return the column for each column of an encoding and its label, by position; None if their number does not fit.

    ``columns`` are all columns that the dataset's input had, with or without the label, or the features, with or
    without the label, in their order there. None, too, where that leaves several ways.
    """
    label = encoding.label
    features = [column.name for column in encoding.columns]
    named = encoding.reading.columns if encoding.reading is not None else ()
    original = list(named or (*features, *([] if label is None else [label])))
    used = [name for name in original if name in features or name == label]
    ways = [original, used, [name for name in original if name != label]]
    in_order = [name for name in original if name in features] == features
    if in_order:  # else the features alone may stand in either order
        ways.append(features)
    fitting = {
        tuple((name, column) for name, column in zip(way, columns, strict=True) if name in used)
        for way in ways
        if len(way) == len(columns)
    }
    return dict(fitting.pop()) if len(fitting) == 1 else None


def _label(table: Table, encoding: Encoding) -> str | None:
    """Return the name of the label column, if this table has one."""
    if encoding.label in table.columns and encoding.label not in table.shapes:
        return encoding.label
    return table.label


def _spread(table: Table, encoding: Encoding, label: str | None, others: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that hold as many numbers as the encoding has features. Raises `DataError` for others."""
    names = list(table.features) or [name for name in table.columns if name != label]

    def width(of: Sequence[str]) -> int:
        return sum(math.prod(table.shapes.get(name, ())) for name in of)

    if width(names) != encoding.features:
        is_kept = table.reading is not None and table.reading.index == "keep"
        names = names if is_kept else [name for name in names if name not in table.row_numbers]
    if width(names) != encoding.features:
        names = [name for name in names if name not in others]
    if width(names) != encoding.features:
        raise DataError(f"a row has {width(names)} numbers, the model wants {encoding.features}", file=table.file)
    return tuple(names)


def _count_error(table: Table, encoding: Encoding) -> DataError:
    names = [column.name for column in encoding.columns]
    shown = listed(names)
    return DataError(
        f"a row has {len(table.columns)} numbers, the model wants {len(names)} ({shown}), and no header names them"
        if encoding.features == len(names)
        else f"has {len(table.columns)} columns and no header, the model wants {len(names)} ({shown})",
        hint="name the columns in the first line, as the file that was imported does, or check --delimiter",
        file=table.file,
    )
