"""Raw columns, whatever file they come from, as numbers or text.

Raw data is a mapping from column name to column: an Arrow array, or a numpy array of shape (n, width) for a column
whose every row is a vector (an image, say). Rows are numbered in messages as in the raw file, from 1, header not
counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.errors import DataError

Column: TypeAlias = "pa.Array | npt.NDArray[Any]"
Columns: TypeAlias = Mapping[str, Column]

_INTEGER = re.compile(r"[+-]?\d+(\.0*)?")


@dataclass(frozen=True)
class Place:
    """Where a chunk of rows came from, for messages. ``row`` is the chunk's first row in the file, from 0."""

    file: str | None = None
    row: int = 0


def class_name(value: Any) -> str:
    """A raw label as a name, whole numbers in their shortest form: "3" for 3, 3.0, "3.0" and "03"."""
    text = str(value).strip()
    return str(int(text.partition(".")[0])) if _INTEGER.fullmatch(text) else text


def class_order(names: Sequence[str]) -> tuple[str, ...]:
    """Distinct names (of `class_name`) in index order: whole numbers by size, anything else as text."""
    distinct = set(names)
    if all(_INTEGER.fullmatch(name) for name in distinct):
        return tuple(sorted(distinct, key=int))
    return tuple(sorted(distinct))


def numbers(column: Column, name: str, place: Place) -> npt.NDArray[Any]:
    """A column as numbers, missing values as NaN: shape (n,) or (n, width)."""
    if isinstance(column, np.ndarray):
        if column.dtype.kind not in "biuf":
            raise DataError(f"expected numbers, found {column.dtype}", file=place.file, column=name)
        return column
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _parsed(column, name, place)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_null(column.type)):
        raise DataError(
            f"expected numbers, found {column.type}",
            file=place.file,
            column=name,
            hint="encode the column with --categorical, or name those to use, without it, with --features",
        )
    if column.null_count:
        column = column.cast(pa.float64(), safe=False)
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _parsed(column: pa.Array, name: str, place: Place) -> npt.NDArray[np.float64]:
    try:
        parsed = _trimmed(column).cast(pa.float64())
    except pa.ArrowInvalid:
        for row, value in enumerate(column.to_pylist()):
            if value is not None and not is_number(value):
                raise DataError(
                    f"{value!r} is not a number",
                    file=place.file,
                    row=place.row + row + 1,
                    column=name,
                    hint="encode the column with --categorical, or name those to use, without it, with --features",
                ) from None
        raise
    values: npt.NDArray[np.float64] = parsed.to_numpy(zero_copy_only=False)
    return values


def is_number(text: str) -> bool:
    """Whether Arrow reads the text as a number (NaN and infinity included)."""
    try:
        pa.scalar(text.strip()).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def texts(column: Column, name: str, place: Place) -> pa.Array:
    """A column as Arrow strings, trimmed; whole numbers and booleans by their shortest text."""
    return _trimmed(plain(column, name, place).cast(pa.string()))


def _trimmed(column: pa.Array) -> pa.Array:
    import pyarrow.compute as pc  # takes 30 ms: training opens datasets with their encodings, but calls none

    return pc.utf8_trim_whitespace(column)


def plain(column: Column, name: str, place: Place) -> pa.Array:
    """A one-dimensional Arrow array of strings, numbers or booleans."""
    if isinstance(column, np.ndarray):
        if column.ndim == 2 and column.shape[1] == 1:
            column = column[:, 0]
        if column.ndim != 1 or column.dtype.kind not in "biufUS":
            raise DataError(
                f"expected one value a row, found shape {column.shape} {column.dtype}", file=place.file, column=name
            )
        if column.dtype.kind == "S":
            column = _decoded(column, name, place)
        column = pa.array(column, from_pandas=True)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    elif pa.types.is_large_string(kind):
        column = column.cast(pa.string())
    elif not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
              or pa.types.is_boolean(kind) or pa.types.is_null(kind)):  # fmt: skip
        raise DataError(f"expected text or numbers, found {kind}", file=place.file, column=name)
    return column


def _decoded(column: npt.NDArray[Any], name: str, place: Place) -> npt.NDArray[Any]:
    """Bytes as text, or `DataError` naming the first that is not UTF-8."""
    try:
        return np.char.decode(column, "utf-8")
    except UnicodeDecodeError:
        for row, value in enumerate(column.tolist()):
            if value.decode("utf-8", "replace").encode() != value:
                raise DataError(
                    f"{value[:60]!r} is not UTF-8", file=place.file, row=place.row + row + 1, column=name
                ) from None
        raise


MISSING = (
    "fill it in, or leave out its row or column; data imported with --nulls mean has its gaps filled, and so has "
    "whatever models trained on it are given"
)
"""Whoever imports, trains from arrays or predicts is told this."""


def bad_value(value: Any, name: str, place: Place, row: int) -> DataError:
    """The error for a value that is missing (None, NaN) or infinite."""
    missing = value is None or value != value
    return DataError(
        "a value is missing" if missing else f"{value} is not a finite number",
        file=place.file,
        row=place.row + row + 1,
        column=name,
        hint=MISSING if missing else None,
    )
