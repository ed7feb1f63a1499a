"""Which columns of the input a dataset is made of, and what each is used for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from nnlib.core.errors import DataError, UsageError
from nnlib.core.listing import listed
from nnlib.core.notes import note
from nnlib.data.encoding import Encoding, FeatureColumn, FeatureType, columns_from_json
from nnlib.data.importing.formats.table import MOST_NUMBERS, Role, Table
from nnlib.data.importing.import_options import ImportOptions


@dataclass(frozen=True)
class ColumnChoice:
    """The columns that are used. The feature columns still lack their categories and fill values.

    ``label``: the label column. ``extra``: the columns that the dataset keeps as they are. ``dtype``: how features are
    stored; ``auto``: float32, or float64 if the survey finds a need. ``fill_missing``: whether missing values are
    filled with the mean of their column.
    """

    label: str
    features: tuple[FeatureColumn, ...]
    extra: tuple[str, ...]
    dtype: Literal["auto"] | FeatureType
    fill_missing: bool

    @property
    def roles(self) -> dict[str, Role]:
        """Column name -> the role it is read in."""
        roles: dict[str, Role] = {
            column.name: "text" if column.kind == "categorical" else "number" for column in self.features
        }
        return roles | dict.fromkeys((self.label, *self.extra), "value")

    @property
    def dense(self) -> Encoding:
        """The encoding of the columns that hold numbers; missing values that are to be filled stay NaN."""
        missing = float("nan")
        columns = (
            replace(column, fill=(missing,) * column.width if self.fill_missing else ())
            for column in self.features
            if column.kind != "categorical"
        )
        return Encoding(tuple(columns), dtype="float32" if self.dtype == "auto" else self.dtype)

    @property
    def categorical(self) -> list[str]:
        """The names of the feature columns that are encoded one-hot."""
        return [column.name for column in self.features if column.kind == "categorical"]

    def to_json(self) -> dict[str, Any]:
        """Return the choice as JSON values; `from_json` is the inverse."""
        return {
            "label": self.label,
            "features": Encoding(self.features).to_json()["columns"],
            "keep": list(self.extra),
            "dtype": self.dtype,
            "fill_missing": self.fill_missing,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ColumnChoice:
        """Return the choice that `to_json` wrote."""
        features = columns_from_json(data["features"])
        return cls(data["label"], features, tuple(data["keep"]), data["dtype"], bool(data["fill_missing"]))


def _without_row_numbers(table: Table, features: list[str], categorical: set[str], options: ImportOptions) -> list[str]:
    """Return the features without the columns that only number the rows, unless the user wants those."""
    left_out = [name for name in table.row_numbers if name in features and name not in categorical]
    if options.index == "keep" or not left_out:
        return features
    if len(left_out) == len(features):
        raise UsageError(
            f"the only feature {left_out[0]!r} numbers the rows", hint="take it with --index keep", file=table.file
        )
    shown = ", ".join(repr(name) for name in left_out)
    one, several = "column {} only numbers the rows and is", "columns {} only number the rows and are"
    what = (one if len(left_out) == 1 else several).format(shown)
    note(f"{table.file}: {what} left out (--index keep takes {'it' if len(left_out) == 1 else 'them'} for features)")
    return [name for name in features if name not in left_out]


def choose_columns(table: Table, options: ImportOptions) -> ColumnChoice:
    """Choose among the columns of ``table`` those that ``options`` name, or the usual ones.

    Raises `UsageError` for options that do not fit the table and `DataError` for rows that are too wide.
    """
    wanted = options.label if options.label in table.columns or table.label is None else table.label
    if wanted is None:
        columns_there = listed(table.columns, 20)
        raise UsageError("name the label column with --label", hint=f"columns: {columns_there}", file=table.file)
    label = table.column(wanted, "--label")
    extra = tuple(dict.fromkeys([*(table.column(name, "--keep") for name in options.keep), *table.extra]))
    categorical = {table.column(name, "--categorical") for name in options.categorical}
    for name in extra:
        if name in ("row", "x", "y") or name in table.shapes:
            raise UsageError(f"--keep {name}: a kept column cannot be a vector, nor be named row, x or y")
    if options.features:
        features = [table.column(name, "--features") for name in options.features]
    else:
        features = [name for name in table.features if name != label] or [
            name for name in table.columns if name != label and name not in extra
        ]
        features = _without_row_numbers(table, features, categorical, options)
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
    dtype: Literal["auto"] | FeatureType = options.dtype
    if dtype == "auto":
        dtype = options.text.dtype if options.text else "uint8" if pixels else "auto"
    if options.text and categorical:
        raise UsageError("--text and --categorical exclude each other: the tokens of the text are all features")
    if dtype == "uint8" and options.nulls == "mean" and options.dtype == "uint8":
        raise UsageError("--dtype uint8 and --nulls mean exclude each other: a mean is no whole number")
    if dtype == "uint8" and categorical:
        raise UsageError("--dtype uint8 and --categorical exclude each other")
    fill = options.nulls == "mean" and dtype in ("auto", "float32", "float64")  # whole numbers are never missing
    return ColumnChoice(label, tuple(columns), extra, dtype, fill)
