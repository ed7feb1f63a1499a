"""Columns of the input as numbers or text, whatever file they come from.

A chunk of the input is a mapping from column name to column: an Arrow array, or a numpy array of shape (n, width) for a
column of vectors, such as images. Messages number rows as the file does, from 1, without its header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.errors import DataError
from nnlib.data import arrow_types
from nnlib.data.arrow_types import numbers_of, plain_column, seconds_of
from nnlib.data.spelling import is_short, spell

Column: TypeAlias = "pa.Array | npt.NDArray[Any]"
Columns: TypeAlias = Mapping[str, Column]

_NUMPY_UNITS = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s"}
"""Units of numpy times that Arrow lacks -> a finer one that it has."""


@dataclass(frozen=True)
class RowOrigin:
    """Where a chunk of rows came from, for messages. ``row`` is the position of its first row in the file, from 0."""

    file: str | None = None
    row: int = 0


def to_numbers(column: Column, name: str, origin: RowOrigin) -> npt.NDArray[Any]:
    """Return a column as numbers, missing values as NaN, shape (n,) or (n, width).

    Dates, times and durations become seconds by the rule of `nnlib.data.arrow_types`, decimals float64. Raises
    `DataError` for a value that is no number.
    """
    if isinstance(column, np.ndarray):
        if column.dtype.kind in "mM":
            try:
                return seconds_of(column)
            except ValueError as error:
                raise DataError(str(error), file=origin.file, column=name) from None
        if column.dtype.kind not in "biuf":
            raise DataError(f"expected numbers, found {column.dtype}", file=origin.file, column=name)
        return column
    column = plain_column(column)
    if pa.types.is_string(column.type):
        return _parsed(column, name, origin)
    if not arrow_types.is_number(column.type):
        raise DataError(
            f"expected numbers, found {column.type}",
            file=origin.file,
            column=name,
            hint="encode the column with --categorical, or name those to use, without it, with --features",
        )
    return numbers_of(column)


def _parsed(column: pa.Array, name: str, origin: RowOrigin) -> npt.NDArray[np.float64]:
    trimmed = _trimmed(column)
    try:
        parsed = trimmed.cast(pa.float64())
    except pa.ArrowInvalid:
        seconds = arrow_types.seconds_of_texts(trimmed)
        if seconds is not None:
            times: npt.NDArray[np.float64] = seconds.to_numpy(zero_copy_only=False)
            return times
        for row, value in enumerate(column.to_pylist()):
            if value is not None and not is_number(value):
                raise DataError(
                    f"{value!r} is not a number",
                    file=origin.file,
                    row=origin.row + row + 1,
                    column=name,
                    hint="encode the column with --categorical, or name those to use, without it, with --features",
                ) from None
        raise
    values: npt.NDArray[np.float64] = parsed.to_numpy(zero_copy_only=False)
    return values


def is_number(text: str) -> bool:
    """Return whether Arrow reads the text as a number, NaN and infinity included."""
    try:
        pa.scalar(text.strip()).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def to_texts(column: Column, name: str, origin: RowOrigin) -> pa.Array:
    """Return a column as Arrow strings, each value in its one spelling (`nnlib.data.spelling`); NaN is missing.

    Raises `DataError` as `to_plain_array` does.
    """
    values = to_plain_array(column, name, origin)
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        return values.cast(pa.string())
    encoded = values.dictionary_encode()
    texts = [None if value is None else spell(value) for value in distinct_values(encoded.dictionary)]
    return pa.array(texts, pa.string()).take(encoded.indices)


def distinct_values(values: pa.Array) -> list[Any]:
    """Return an Arrow array of texts, numbers or booleans as Python values, None for NaN.

    A float32 that is no whole number becomes its shortest text, which is not that of the float64 with its value.
    """
    found: list[Any] = values.to_pylist()
    if not pa.types.is_floating(values.type):
        return found
    if pa.types.is_float32(values.type):
        found = [value if value is None or is_short(value) else str(np.float32(value)) for value in found]
    return [None if value is None or value != value or value == "nan" else value for value in found]


def _trimmed(column: pa.Array) -> pa.Array:
    import pyarrow.compute as pc  # takes 30 ms: training opens datasets with their encodings, but calls none

    return pc.utf8_trim_whitespace(column)


def to_plain_array(column: Column, name: str, origin: RowOrigin) -> pa.Array:
    """Return a column as an Arrow array of strings, numbers or booleans, shape (n,).

    Dates, times, decimals and bytes become strings in their one spelling (`nnlib.data.spelling`). Raises `DataError`
    for a column of other values, or of several values a row, and for bytes that are not UTF-8.
    """
    if isinstance(column, np.ndarray):
        column = _arrow_array(column, name, origin)
    column = plain_column(column)
    kind = column.type
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        return _respelled(column.cast(pa.string()))
    if pa.types.is_decimal(kind):
        return _respelled(column)
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _decoded_bytes(column, name, origin)
    raise DataError(f"expected text or numbers, found {kind}", file=origin.file, column=name)


def _arrow_array(column: npt.NDArray[Any], name: str, origin: RowOrigin) -> pa.Array:
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1 or column.dtype.kind not in "biufUSM":
        raise DataError(
            f"expected one value a row, found shape {column.shape} {column.dtype}", file=origin.file, column=name
        )
    if column.dtype.kind == "S":
        column = _decoded(column, name, origin)
    elif column.dtype.kind == "M":
        unit = np.datetime_data(column.dtype)[0]
        column = column.astype(f"M8[{_NUMPY_UNITS.get(unit, unit)}]")
    elif column.dtype.kind == "f" and column.dtype.itemsize > 8:
        column = column.astype(np.float64)
    return pa.array(column, from_pandas=True)


def _respelled(column: pa.Array) -> pa.Array:
    """Return texts or decimals as strings in their one spelling."""
    encoded = column.dictionary_encode()
    texts = [None if value is None else spell(value) for value in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _decoded_bytes(column: pa.Array, name: str, origin: RowOrigin) -> pa.Array:
    try:
        return column.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        for row, value in enumerate(column.to_pylist()):
            if value is not None:
                _check_utf8(value, name, origin, row)
        raise


def _decoded(column: npt.NDArray[Any], name: str, origin: RowOrigin) -> npt.NDArray[Any]:
    """Return bytes as text. Raises `DataError` for the first value that is not UTF-8."""
    try:
        return np.char.decode(column, "utf-8")
    except UnicodeDecodeError:
        for row, value in enumerate(column.tolist()):
            _check_utf8(value, name, origin, row)
        raise


def _check_utf8(value: bytes, name: str, origin: RowOrigin, row: int) -> None:
    if value.decode("utf-8", "replace").encode() != value:
        raise DataError(f"{value[:60]!r} is not UTF-8", file=origin.file, row=origin.row + row + 1, column=name)


MISSING = (
    "fill it in, or leave out its row or column; an import with --nulls mean fills missing values, and so do models "
    "trained on its dataset"
)
"""The hint for a missing value: in an import, in training from arrays and in prediction."""


def bad_value_error(value: Any, name: str, origin: RowOrigin, row: int) -> DataError:
    """Return the error for a value that is missing (None, NaN) or infinite; ``row`` counts from the chunk's first."""
    missing = value is None or value != value
    return DataError(
        "a value is missing" if missing else f"{value} is not a finite number",
        file=origin.file,
        row=origin.row + row + 1,
        column=name,
        hint=MISSING if missing else None,
    )
