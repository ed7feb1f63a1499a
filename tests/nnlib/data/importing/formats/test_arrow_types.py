"""Parquet and Arrow files with columns of every type; right values come from pandas, DuckDB and Python's own types."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from nnlib.core.errors import DataError
from nnlib.data.columns import RowOrigin, to_numbers, to_plain_array
from nnlib.data.importing.format_registry import open_tables
from nnlib.data.importing.formats.table import Role
from nnlib.data.importing.read_options import ReadOptions

UTC = datetime.UTC
DECIMAL = decimal.Decimal


def write_parquet(table: pa.Table, folder: Path) -> str:
    pq.write_table(table, folder / "a.parquet", row_group_size=2)
    return str(folder / "a.parquet")


def write_arrow(table: pa.Table, folder: Path) -> str:
    pyarrow.feather.write_feather(table, folder / "a.arrow", compression="zstd", chunksize=2)
    return str(folder / "a.arrow")


Write = Callable[[pa.Table, Path], str]
both = pytest.mark.parametrize("write", [write_parquet, write_arrow])


def column(file: str, name: str = "a", role: Role = "number") -> Any:
    """The column as an import takes it: as numbers, or as text."""
    (table,) = open_tables([file], ReadOptions())
    parts = [chunk[name] for chunk in table.chunks({name: role})]
    if role == "number":
        return np.concatenate([to_numbers(part, name, RowOrigin(file)) for part in parts])
    return [value for part in parts for value in to_plain_array(part, name, RowOrigin(file)).to_pylist()]


MOMENT = datetime.datetime(2024, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
NUMBERS: list[tuple[pa.DataType, list[Any], list[float]]] = [
    (pa.bool_(), [True, False], [1, 0]),
    (pa.uint64(), [2**64 - 1, 3], [float(2**64 - 1), 3]),
    (pa.float16(), [np.float16(0.5), np.float16(-2)], [0.5, -2]),
    (pa.decimal128(9, 2), [DECIMAL("1.50"), DECIMAL("-0.10")], [1.5, -0.1]),
    (pa.decimal256(50, 7), [DECIMAL("123456789012345678901234.5678901"), DECIMAL("0.1")], [1.2345678901234568e23, 0.1]),
    (pa.date32(), [datetime.date(2024, 1, 31), datetime.date(1969, 12, 31)], [1706659200, -86400]),
    (pa.date64(), [datetime.date(2024, 1, 31), datetime.date(1969, 12, 31)], [1706659200, -86400]),
    (pa.timestamp("us"), [MOMENT.replace(tzinfo=None), MOMENT.replace(tzinfo=None)], [MOMENT.timestamp()] * 2),
    (pa.timestamp("ms", "UTC"), [MOMENT, MOMENT], [MOMENT.timestamp()] * 2),
    (pa.timestamp("ns", "Asia/Tokyo"), [MOMENT, MOMENT], [MOMENT.timestamp()] * 2),
    (pa.timestamp("s"), [datetime.datetime(1969, 12, 31, 23, 59, 59)] * 2, [-1, -1]),
    (pa.time32("s"), [datetime.time(12, 30), datetime.time(0, 0, 1)], [45000, 1]),
    (pa.time64("us"), [datetime.time(12, 30, 0, 500_000), datetime.time(0)], [45000.5, 0]),
    (pa.duration("ms"), [datetime.timedelta(days=1, milliseconds=5), datetime.timedelta(-1)], [86400.005, -86400]),
    (pa.dictionary(pa.int8(), pa.int64()), [7, 9], [7, 9]),
    (pa.dictionary(pa.int8(), pa.string(), ordered=True), ["7", "9.5"], [7, 9.5]),
    (pa.string_view(), ["7", "9.5"], [7, 9.5]),
    (pa.large_string(), ["7", "9.5"], [7, 9.5]),
    (pa.binary(), [b"7", b"9.5"], [7, 9.5]),
]


@both
@pytest.mark.parametrize(("kind", "values", "expected"), NUMBERS, ids=[str(kind) for kind, _, _ in NUMBERS])
def test_numbers(tmp_path: Path, write: Write, kind: pa.DataType, values: list[Any], expected: list[float]) -> None:
    file = write(pa.table({"a": pa.array(values, kind), "y": [0, 1]}), tmp_path)
    assert column(file).astype(float).tolist() == pytest.approx(expected, rel=1e-15)
    file = write(pa.table({"a": pa.array([values[0], None, values[1]], kind), "y": [0, 1, 0]}), tmp_path)
    assert column(file).tolist() == pytest.approx([expected[0], float("nan"), expected[1]], rel=1e-15, nan_ok=True)


def test_a_timestamp_in_nanoseconds_keeps_its_fraction(tmp_path: Path) -> None:
    stamps = pd.Series(pd.to_datetime(["2024-01-31 12:00:00.123456789", "1960-05-05 00:00:00.5"]))
    file = write_parquet(pa.table({"a": pa.array(stamps, pa.timestamp("ns"))}), tmp_path)
    assert column(file).tolist() == [1706702400.1234567890, (stamps[1] - pd.Timestamp(0)).total_seconds()]


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "25s"])
def test_numpy_dates_mean_what_arrow_means(unit: str) -> None:
    dates = np.array(["2024-01-31T12:00:50.25", "1960-05-05T00:00:00", "NaT"]).astype(f"datetime64[{unit}]")
    seconds = to_numbers(dates, "a", RowOrigin())
    expected = (pd.Series(dates.astype("datetime64[ns]")) - pd.Timestamp(0)).dt.total_seconds()
    assert seconds.tolist() == pytest.approx(expected.tolist(), nan_ok=True)


def test_durations_without_a_length_are_refused() -> None:
    with pytest.raises(DataError, match="months and years"):
        to_numbers(np.array([1], "timedelta64[M]"), "a", RowOrigin())


TEXTS: list[tuple[pa.DataType, list[Any], list[Any]]] = [
    (pa.string_view(), ["x", None, "ä"], ["x", None, "ä"]),
    (pa.large_string(), ["x", None, "ä"], ["x", None, "ä"]),
    (pa.dictionary(pa.int8(), pa.string()), ["x", None, "x"], ["x", None, "x"]),
    (pa.dictionary(pa.uint16(), pa.large_string(), ordered=True), ["x", None, "y"], ["x", None, "y"]),
    (pa.dictionary(pa.int32(), pa.int64()), [3, None, 4], [3, None, 4]),
    (pa.dictionary(pa.int32(), pa.bool_()), [True, None, False], [True, None, False]),
    (pa.binary(), [b"x", None, "ä".encode()], ["x", None, "ä"]),
    (pa.large_binary(), [b"x", None, b"y"], ["x", None, "y"]),
    (pa.binary_view(), [b"x", None, b"y"], ["x", None, "y"]),
]


@both
@pytest.mark.parametrize(("kind", "values", "expected"), TEXTS, ids=[str(kind) for kind, _, _ in TEXTS])
def test_texts(tmp_path: Path, write: Write, kind: pa.DataType, values: list[Any], expected: list[Any]) -> None:
    file = write(pa.table({"a": pa.array(values, kind)}), tmp_path)
    assert column(file, role="value") == expected


@both
def test_bytes_that_are_no_text(tmp_path: Path, write: Write) -> None:
    file = write(pa.table({"a": pa.array([b"x", b"x", b"\xff\xfe"])}), tmp_path)
    with pytest.raises(DataError, match=r"row 3.*column a.*not UTF-8|column a.*row 3.*not UTF-8|not UTF-8"):
        column(file, role="value")


VECTORS: list[tuple[pa.DataType, list[Any], tuple[int, ...]]] = [
    (pa.list_(pa.float32()), [[1, 2, 3], [4, 5, 6], [7, 8, 9]], (3,)),
    (pa.list_(pa.float64(), 3), [[1, 2, 3], [4, 5, 6], [7, 8, 9]], (3,)),
    (pa.large_list(pa.int16()), [[1, 2], [4, 5], [7, 8]], (2,)),
    (pa.list_view(pa.uint8()), [[1, 2], [4, 5], [7, 8]], (2,)),
    (pa.large_list_view(pa.bool_()), [[True, False], [False, False], [True, True]], (2,)),
    (pa.list_(pa.decimal128(5, 1)), [[DECIMAL("1.5")], [DECIMAL("2")], [DECIMAL("-3.1")]], (1,)),
    (pa.list_(pa.list_(pa.int32())), [[[1, 2, 3], [4, 5, 6]]] * 3, (2, 3)),
    (pa.list_(pa.list_(pa.float32(), 2), 3), [[[1, 2], [3, 4], [5, 6]]] * 3, (3, 2)),
]


@both
@pytest.mark.parametrize(("kind", "values", "shape"), VECTORS, ids=[str(kind) for kind, _, _ in VECTORS])
def test_vectors(tmp_path: Path, write: Write, kind: pa.DataType, values: list[Any], shape: tuple[int, ...]) -> None:
    file = write(pa.table({"a": pa.array(values, kind)}), tmp_path)
    (table,) = open_tables([file], ReadOptions())
    assert table.shapes == {"a": shape}
    expected = np.array(values, float).reshape(3, -1)
    assert np.array_equal(column(file).astype(float), expected)


@both
def test_tensors_keep_their_shape(tmp_path: Path, write: Write) -> None:
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    file = write(pa.table({"a": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)}), tmp_path)
    (table,) = open_tables([file], ReadOptions())
    assert table.shapes == {"a": (4, 3)} and table.types == {"a": "uint8"}
    assert np.array_equal(column(file), pixels.reshape(3, -1))


@both
@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([[[1, 2]], [[3, 4]], [[5]]], "expected 2 values, found 1"),
        ([[[1, 2]], [[3, 4]], [[5, 6], [7, 8]]], "expected 1 values, found 2"),
        ([[[1, 2]], [[3, 4]], None], "no list"),
    ],
)
def test_ragged_vectors_name_their_row(tmp_path: Path, write: Write, values: list[Any], found: str) -> None:
    file = write(pa.table({"a": pa.array(values, pa.list_(pa.list_(pa.int32())))}), tmp_path)
    with pytest.raises(DataError, match="row 3") as caught:
        column(file)
    assert found in str(caught.value)


@both
def test_the_width_is_that_of_the_first_row_with_a_list(tmp_path: Path, write: Write) -> None:
    file = write(pa.table({"a": pa.array([None, None, [1, 2]], pa.list_(pa.int32())), "b": [1, 2, 3]}), tmp_path)
    (table,) = open_tables([file], ReadOptions())
    assert table.shapes == {"a": (2,)}


@both
def test_structs_become_a_column_for_each_field(tmp_path: Path, write: Write) -> None:
    frame = pd.DataFrame({"p": [1, 2, 3], "q": ["u", "v", "w"]})
    rows = [{"a": int(p), "deep": {"b": q, "v": [1, int(p)]}} for p, q in frame.itertuples(index=False)]
    file = write(pa.table({"s": pa.array([*rows, None]), "y": [0, 1, 0, 1]}), tmp_path)
    (table,) = open_tables([file], ReadOptions())
    assert table.columns == ("s.a", "s.deep.b", "s.deep.v", "y")
    assert column(file, "s.a").tolist() == pytest.approx([1, 2, 3, float("nan")], nan_ok=True)
    assert column(file, "s.deep.b", "value") == ["u", "v", "w", None]


@both
@pytest.mark.parametrize(
    "values",
    [
        pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
        pa.array([b"abc"], pa.binary(3)),
        pa.array([["x"]]),
        pa.array([[{"p": 1}]]),
    ],
)
def test_types_that_are_no_numbers_are_refused_when_used(tmp_path: Path, write: Write, values: pa.Array) -> None:
    file = write(pa.table({"a": values, "b": [1]}), tmp_path)
    assert column(file, "b").tolist() == [1]
    with pytest.raises(DataError, match="--features") as caught:
        column(file, "a")
    assert "column a" in str(caught.value) and str(values.type.id) is not None


def test_what_duckdb_writes(tmp_path: Path) -> None:
    file = tmp_path / "d.parquet"
    identity = uuid.UUID(int=5)
    duckdb.sql(
        f"""copy (select 1.5::decimal(9,2) d, date '2024-01-31' dt, timestamp '2024-01-31 12:00:00' ts,
        timestamptz '2024-01-31 12:00:00+00' tz, time '12:30:00' t, 5::hugeint h, 'x'::blob b, uuid '{identity}' u,
        [1,2]::int[] l, [1,2]::int[2] ar, {{'a':1,'b':'x'}} st, 'a'::enum('a','b') e, true bo, 3::ubigint ub,
        3::utinyint ut, timestamp_ns '2024-01-31 12:00:00.123456789' tns, '{{}}'::json j) to '{file}'"""
    )
    relation = duckdb.sql("select epoch(timestamp '2024-01-31 12:00:00'), epoch(date '2024-01-31')")
    assert relation is not None
    (expected,) = relation.fetchall()
    numbers = {"d": 1.5, "dt": expected[1], "ts": expected[0], "tz": expected[0], "t": 45000, "h": 5, "bo": 1, "ub": 3}
    numbers |= {"ut": 3, "tns": 1706702400.123456789, "st.a": 1}
    assert {name: column(str(file), name)[0] for name in numbers} == numbers
    texts = {"b": "x", "u": str(identity), "e": "a", "st.b": "x", "j": "{}"}
    assert {name: column(str(file), name, "value")[0] for name in texts} == texts
    assert column(str(file), "l").tolist() == column(str(file), "ar").tolist() == [[1, 2]]


@pytest.mark.parametrize("damage", [0, 7, 100])
def test_damaged_arrow_files(tmp_path: Path, damage: int) -> None:
    file = Path(write_arrow(pa.table({"a": [1, 2, 3]}), tmp_path))
    file.write_bytes(file.read_bytes()[:damage])
    with pytest.raises(DataError, match=r"a\.arrow"):
        column(str(file))
