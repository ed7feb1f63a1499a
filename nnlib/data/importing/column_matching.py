"""Which columns of a new file are the features and the label that a model knows: by name, or else by position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nnlib.core.errors import DataError
from nnlib.core.notes import note
from nnlib.data.encoding import Encoding
from nnlib.data.importing.formats.table import Role, Table

_VALUE: Role = "value"


@dataclass(frozen=True)
class ColumnMatch:
    """Where the columns of an encoding are in a table.

    - ``columns``: column of the encoding -> column of the table
    - ``spread``: the columns of the table that together replace all columns of the encoding; none if it has these
    - ``label``: the label column of the table, if it has one
    """

    columns: dict[str, str]
    spread: tuple[str, ...]
    label: str | None

    def roles(self, encoding: Encoding) -> dict[str, Role]:
        """Return the role of each column of the table that is read."""
        kinds: dict[str, Role] = {
            self.columns[column.name]: "text" if column.kind == "categorical" else "number"
            for column in encoding.columns
            if column.name in self.columns
        }
        roles = kinds | dict.fromkeys(self.spread, "number")
        return roles if self.label is None else roles | {self.label: _VALUE}


def match_columns(table: Table, encoding: Encoding, others: Sequence[str] = ()) -> ColumnMatch:
    """Find the columns of an encoding in a table.

    Columns with names are found by them; those of a CSV file without a header, and the numbers of an array, by their
    position, and a note says so. ``others``: columns that are read for something else and, where their number would not
    fit with them, are no features. Raises `DataError` for columns that are missing and for another number of columns.
    """
    label = _label(table, encoding)
    wanted = [column.name for column in encoding.columns]
    missing = [name for name in wanted if name not in table.columns]
    only = encoding.columns[0] if len(encoding.columns) == 1 and encoding.columns[0].kind == "vector" else None
    if only is not None and (missing or only.name not in table.shapes):
        return ColumnMatch({}, _spread(table, encoding, label, others), label)
    if _goes_by_position(table, encoding, bool(missing)):
        note(f"{table.file}: its columns are taken by position, for no names say which they are")
        found = positions(table.columns, encoding)
        if found is None:
            raise _count_error(table, encoding)
        return ColumnMatch({name: found[name] for name in wanted}, (), found.get(encoding.label or ""))
    if not missing:
        return ColumnMatch({name: name for name in wanted}, (), label)
    if table.shapes and not any(column.kind == "categorical" for column in encoding.columns):
        note(f"{table.file}: its numbers are taken by position, for no names say which they are")
        return ColumnMatch({}, _spread(table, encoding, label, others), label)
    raise lacks_error(table.file, missing)


def _goes_by_position(table: Table, encoding: Encoding, lacks_names: bool) -> bool:
    """Return whether names cannot say which columns are which: the table or the dataset's input had no header.

    Datasets of earlier versions do not say whether theirs had one: names decide, as they did.
    """
    if encoding.reading is None:
        return False
    has_names = table.reading is None or table.reading.header is not False
    return not has_names or (lacks_names and encoding.reading.header is False and not table.shapes)


def lacks_error(file: str, missing: Sequence[str]) -> DataError:
    """Return the error for a file without some feature columns."""
    shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
    return DataError(
        f"lacks the feature columns {shown}",
        hint="the columns must have the names they had when the dataset was imported",
        file=file,
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
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return DataError(
        f"a row has {len(table.columns)} numbers, the model wants {len(names)} ({shown}), and no header names them"
        if encoding.features == len(names)
        else f"has {len(table.columns)} columns and no header, the model wants {len(names)} ({shown})",
        hint="name the columns in the first line, as the file that was imported does, or check --delimiter",
        file=table.file,
    )
