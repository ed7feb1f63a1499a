"""Arrow columns of many types as those of few: wrappers taken off, dates and decimals as numbers.

The rule for times, the same for Arrow and numpy: a date or a timestamp is the seconds since 1970-01-01 00:00 UTC
(without a time zone it counts as UTC), a time of day the seconds since midnight, a duration its seconds.
"""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9, "ps": 10**12, "fs": 10**15, "as": 10**18}
_SECONDS = {"W": 604_800, "D": 86_400, "h": 3_600, "m": 60}
_DAY = 86_400


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is text, of whatever layout."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a type is bytes of any length, in which many programs store text."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is a list of any layout (no map)."""
    types = pa.types
    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    return bool(views or types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_number(kind: pa.DataType) -> bool:
    """Return whether a column of this type has a meaning as numbers: what `numbers_of` and its rule for times take."""
    types = pa.types
    plain = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)
    return bool(plain or types.is_decimal(kind) or is_time(kind))


def is_time(kind: pa.DataType) -> bool:
    """Return whether a type is a date, a timestamp, a time of day or a duration."""
    types = pa.types
    return bool(types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind) or types.is_duration(kind))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that a column of type ``kind`` has after `plain_column`."""
    if _is_uuid(kind):
        return pa.string()
    if _is_bool8(kind):
        return pa.bool_()
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    return pa.string() if is_text(kind) else pa.binary() if is_bytes(kind) else kind


def plain_column(column: pa.Array) -> pa.Array:
    """Return a column without what only says how it is stored.

    An extension type becomes what it stores (a UUID its text), dictionaries and runs become their values, text and
    bytes of any layout ``string`` and ``binary``. Other columns are returned as they are.
    """
    kind = column.type
    if _is_uuid(kind):
        values = [None if value is None else str(uuid.UUID(bytes=value)) for value in column.storage.to_pylist()]
        return pa.array(values, pa.string())
    if _is_bool8(kind):
        return column.storage.cast(pa.bool_())
    if isinstance(kind, pa.BaseExtensionType):
        return plain_column(column.storage)
    if pa.types.is_dictionary(kind):
        return plain_column(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        import pyarrow.compute as pc  # as in `nnlib.data.columns`

        return plain_column(pc.run_end_decode(column))
    plain = plain_type(kind)
    return column if plain == kind else column.cast(plain)


def numbers_of(column: pa.Array) -> npt.NDArray[Any]:
    """Return a plain column whose type `is_number` as numbers, shape (n,), missing values as NaN."""
    kind = column.type
    if is_time(kind):
        return _seconds(column)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.string()).cast(pa.float64())  # rounded once, as the same digits in a CSV file are
    if column.null_count:
        column = column.cast(pa.float64(), safe=False)
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def seconds_of_texts(texts: pa.Array) -> pa.Array | None:
    """Return trimmed texts that are all ISO dates or timestamps as seconds, float64; None if any is something else.

    ``2024-01-31``, ``2024-01-31 12:30:00.5``, ``2024-01-31T12:30:00Z``: either all have a time zone, or none.
    """
    import pyarrow.compute as pc  # as in `nnlib.data.columns`

    present = texts.drop_null()
    if not len(present) or not pc.all(pc.match_substring_regex(present, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}")).as_py():
        return None
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return pa.array(_seconds(texts.cast(kind)), from_pandas=True)
        except pa.ArrowInvalid:
            pass
    return None


def seconds_of(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return numpy dates or durations (``datetime64``, ``timedelta64``) as seconds, same shape, NaT as NaN.

    Raises `ValueError` for durations in months or years, which have no length.
    """
    unit, count = np.datetime_data(array.dtype)
    if unit in ("Y", "M"):
        if array.dtype.kind == "m":
            raise ValueError("durations in months and years have no length in seconds")
        array, unit, count = array.astype("datetime64[s]"), "s", 1
    counted = array.astype(array.dtype.newbyteorder("=")).view(np.int64)
    if unit in _SECONDS:
        seconds = counted.astype(np.float64) * (_SECONDS[unit] * count)
    else:
        seconds = _divided(counted, _PER_SECOND.get(unit, 1), count)
    seconds[np.isnat(array)] = np.nan
    return seconds


def _seconds(column: pa.Array) -> npt.NDArray[np.float64]:
    kind = column.type
    counted = column.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    missing = np.asarray(counted.is_null()) if counted.null_count else None
    values = (counted.fill_null(0) if missing is not None else counted).to_numpy().astype(np.int64)
    if pa.types.is_date32(kind):
        seconds: npt.NDArray[np.float64] = values.astype(np.float64) * _DAY
    else:
        seconds = _divided(values, _PER_SECOND["ms" if pa.types.is_date64(kind) else kind.unit], 1)
    if missing is not None:
        seconds[missing] = np.nan
    return seconds


def _divided(counted: npt.NDArray[np.int64], per_second: int, count: int) -> npt.NDArray[np.float64]:
    """Return ``counted * count / per_second``; whole seconds come out exact."""
    whole, rest = np.divmod(counted, per_second)
    seconds: npt.NDArray[np.float64] = (whole.astype(np.float64) + rest.astype(np.float64) / per_second) * count
    return seconds


def _is_uuid(kind: pa.DataType) -> bool:
    return getattr(kind, "extension_name", None) == "arrow.uuid"


def _is_bool8(kind: pa.DataType) -> bool:
    return getattr(kind, "extension_name", None) == "arrow.bool8"
