"""One spelling of a value, whatever file it came from: checked by hand, and by files that pandas and DuckDB wrote."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.raw_rows import read_raw_rows
from nnlib.data.spelling import UNKNOWN, NameIndex, sort_names, spell, unify_names

ROWS = 6


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ((3, 3.0, "3.0", "+3", " 3. ", "3", np.int8(3), Decimal("3.00"), "03.0"), "3"),
        ((True, "True", "TRUE", " true"), "true"),
        ((False, "False", "FALSE", "false"), "false"),
        ((0, -0.0, "-0", "0.0", "+0"), "0"),
        ((0.5, "0.5"), "0.5"),
        ((1e20, "1e+20"), "1e+20"),
        ((2**64, "18446744073709551616", "18446744073709551616.0"), "18446744073709551616"),
        (("01234",), "01234"),
        ((datetime.date(2024, 1, 31), datetime.datetime(2024, 1, 31), "2024-01-31T00:00", "2024-01-31 00:00:00.000"),
         "2024-01-31"),
        (("2024-01-31T12:30", "2024-01-31 12:30:00.000", datetime.datetime(2024, 1, 31, 12, 30)),
         "2024-01-31 12:30:00"),
        (("2024-01-31T12:30:01.50Z", "2024-01-31 13:30:01.5+01:00", "2024-01-31 13:30:01.5+01",
          "2024-01-31 12:30:01.500000000 UTC", "2024-01-31 07:00:01.5-0530"), "2024-01-31 12:30:01.5Z"),
        (("2024-01-31 00:00:00+00:00",), "2024-01-31 00:00:00Z"),
        (("2024-13-31 12:00", ), "2024-13-31 12:00"),
        (("01:02:03.000", datetime.time(1, 2, 3)), "01:02:03"),
        (("1.10",), "1.10"),
        (("tRUE",), "tRUE"),
        (("٣",), "٣"),
        (("9" * 5000,), "9" * 5000),
    ],
)  # fmt: skip
def test_spellings_by_hand(values: tuple[Any, ...], name: str) -> None:
    assert [spell(value) for value in values] == [name] * len(values)


def test_zeros_in_front_are_kept_in_codes_alone() -> None:
    assert unify_names({"01234": 2, "90210": 1}) == {"01234": 2, "90210": 1}
    assert unify_names({"03": 2, "3": 1, "10": 4}) == {"3": 3, "10": 4}
    assert unify_names({"03": 2, "-3": 1, "3": 1}) == {"3": 3, "-3": 1}
    assert unify_names({"03": 2, "3": 1, "A3": 4}) == {"03": 2, "3": 1, "A3": 4}
    assert unify_names({"000": 1, "0": 1}) == {"0": 2}
    assert unify_names({"1.0e+00": 3, "0.000e+00": 2, "-0e0": 1}) == {"1": 3, "0": 3}
    assert unify_names({"1e5": 1, "100000": 2, "1.50": 4, "1.5": 1, "2e-1": 1}) == {"100000": 3, "1.5": 5, "2e-1": 1}
    assert unify_names({"1E5": 1, "A5": 2}) == {"1E5": 1, "A5": 2}
    assert unify_names({"1e20": 1, "1e999999999": 2}) == {"1e20": 1, "1e999999999": 2}


def test_the_order_of_names() -> None:
    assert sort_names(["10", "9", "-1", "-20", "0"]) == ("-20", "-1", "0", "9", "10")
    assert sort_names(["b", "10", "9"]) == ("10", "9", "b")
    long = ["1" + "0" * 5000, "9" * 5000, "-1" + "0" * 5000, "-" + "9" * 5000]
    assert sort_names(long) == (long[2], long[3], long[1], long[0])
    random = np.random.default_rng(0)
    numbers = list({int(number) for number in random.integers(-(10**6), 10**6, 500) // random.integers(1, 10**5, 500)})
    assert sort_names(map(str, numbers)) == tuple(map(str, sorted(numbers)))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("0", "1"), [(1, 1), ("01", 1), (1.0, 1), (True, 1), ("False", 0), ("2", UNKNOWN), ("true", 1)]),
        (("false", "true"), [(1, 1), ("0", 0), ("TRUE", 1), (False, 0), ("yes", UNKNOWN)]),
        (("False", "True"), [("true", 1), (False, 0), (1, 1)]),  # as earlier versions named them
        (("1.0", "2.0"), [(1, 0), ("2", 1), (2.0, 1)]),
        (("0.50", "1.25"), [(0.5, 0), ("5e-1", 0), (Decimal("1.250"), 1)]),
        (("01234", "90210"), [("01234", 0), (1234, 0), ("1234.0", 0), ("00090210", 1)]),
        (("1.1", "1.10"), [("1.10", 1), (1.1, 0), ("1.100", UNKNOWN)]),  # several fit: none does
        (("1e5", "a"), [(100000, UNKNOWN), ("1e5", 0)]),
        (("3", "a"), [("03", 0), (3.0, 0), ("b", UNKNOWN)]),
        (("True", "true"), [("True", 0), ("true", 1), ("TRUE", UNKNOWN), (True, 1)]),
        ((str(2**63), "1e+20"), [(2**63, 0), (10**20, 1), (1e20, 1), (2**63 + 1, UNKNOWN)]),
        (("2024-01-31",), [(datetime.datetime(2024, 1, 31), 0), ("2024-01-31T00:00:00", 0)]),
    ],
)
def test_values_find_their_names(names: tuple[str, ...], expected: list[tuple[Any, int]]) -> None:
    index = NameIndex({name: position for position, name in enumerate(names)})
    assert [(value, index.find(value)) for value, _ in expected] == expected
    assert all(index.find(name) == position for position, name in enumerate(names))


MOMENTS = [datetime.datetime(2024, 1, 31, 12, 30, 0, 250000), datetime.datetime(1999, 12, 31, 23, 59, 59)]
COLUMNS: dict[str, tuple[pa.Array, list[str], int]] = {
    "bool": (pa.array([True, False] * 3), ["false", "true"], 1),
    "int": (pa.array([3, 10, 3, 10, 3, 10]), ["3", "10"], 0),
    "int with nulls, as pandas has it": (pa.array([3.0, 10.0, 3.0, 10.0, 3.0, 10.0]), ["3", "10"], 0),
    "uint64": (pa.array([2**64 - 1, 5] * 3, pa.uint64()), ["5", str(2**64 - 1)], 1),
    "float": (pa.array([0.1, 2.5] * 3), ["0.1", "2.5"], 0),
    "float32": (pa.array([0.1, 2.5] * 3, pa.float32()), ["0.1", "2.5"], 0),
    "date": (pa.array([moment.date() for moment in MOMENTS] * 3), ["1999-12-31", "2024-01-31"], 1),
    "midnight": (pa.array([datetime.datetime(2024, 1, 31), datetime.datetime(2024, 2, 1)] * 3, pa.timestamp("ns")),
                 ["2024-01-31", "2024-02-01"], 0),
    "timestamp": (pa.array(MOMENTS * 3, pa.timestamp("us")), ["1999-12-31 23:59:59", "2024-01-31 12:30:00.25"], 1),
    "zone": (pa.array(MOMENTS * 3, pa.timestamp("us", "UTC")),
             ["1999-12-31 23:59:59Z", "2024-01-31 12:30:00.25Z"], 1),
    "decimal": (pa.array([Decimal("3.00"), Decimal("0.50")] * 3), ["0.50", "3"], 1),
    "text": (pa.array(["b", "a c"] * 3), ["a c", "b"], 1),
    "zip": (pa.array(["01234", "90210"] * 3), ["01234", "90210"], 0),
    "category": (pa.array(["b", "a"] * 3).dictionary_encode(), ["a", "b"], 1),
    "category of integers": (pa.DictionaryArray.from_arrays([0, 1] * 3, pa.array([7, 12])), ["7", "12"], 0),
}  # fmt: skip


def by_arrow_csv(table: pa.Table, path: Path) -> str:
    names = table.schema.names
    plain = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in table.columns]
    pacsv.write_csv(pa.table(plain, names), path)
    return str(path)


def by_pandas_csv(table: pa.Table, path: Path) -> str:
    table.to_pandas().to_csv(path, index=False)
    return str(path)


def by_pandas_parquet(table: pa.Table, path: Path) -> str:
    table.to_pandas().to_parquet(path.with_suffix(".parquet"))
    return str(path.with_suffix(".parquet"))


def by_arrow_parquet(table: pa.Table, path: Path) -> str:
    pq.write_table(table, path.with_suffix(".parquet"))
    return str(path.with_suffix(".parquet"))


def by_duckdb_csv(table: pa.Table, path: Path) -> str:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        connection.register("t", table)
        connection.execute(f"COPY (SELECT * FROM t) TO '{path}' (HEADER, DELIMITER ',')")
    return str(path)


def by_duckdb_parquet(table: pa.Table, path: Path) -> str:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        connection.register("t", table)
        connection.execute(f"COPY (SELECT * FROM t) TO '{path.with_suffix('.parquet')}' (FORMAT parquet)")
    return str(path.with_suffix(".parquet"))


WRITERS = [by_arrow_csv, by_pandas_csv, by_duckdb_csv, by_arrow_parquet, by_pandas_parquet, by_duckdb_parquet]


@pytest.mark.parametrize("kind", COLUMNS)
def test_labels_and_categories_of_one_format_are_known_in_the_others(kind: str, tmp_path: Path) -> None:
    column, names, first = COLUMNS[kind]
    table = pa.table({"size": pa.array(np.arange(ROWS) / 4), "what": column, "label": column})
    options = ImportOptions(label="label", categorical=("what",), task="classification")
    files = {}
    for write in WRITERS:
        folder = tmp_path / write.__name__
        folder.mkdir()
        files[write.__name__] = write(table, folder / "t.csv")
    expected = [first, 1 - first] * (ROWS // 2)
    for source, file in files.items():
        dataset = import_dataset([file], str(tmp_path / source / "d"), options)
        assert list(dataset.classes) == names, source
        assert list(dataset.encoding.columns[1].categories) == names, source
        for other, other_file in files.items():
            (rows,) = read_raw_rows(other_file, dataset.encoding)
            assert rows.y is not None
            assert rows.y.tolist() == expected, (source, other)
            assert rows.x[:, 1:].tolist() == np.eye(2)[expected].tolist(), (source, other)


@pytest.mark.parametrize(
    ("labels", "cells", "names"),
    [
        (np.array([True, False]), ("True", "false"), ["false", "true"]),
        (np.array([3, 10], np.uint8), ("3.0", "10"), ["3", "10"]),
        (np.array([3.0, 10.0]), ("3", "10.0"), ["3", "10"]),
        (np.array([0.1, 2.5], np.float32), ("0.1", "2.50"), ["0.1", "2.5"]),
        (np.array([2**64 - 1, 5], np.uint64), (str(2**64 - 1), "5"), ["5", str(2**64 - 1)]),
        (np.array(["b", "a c"]), ("b ", "a c"), ["a c", "b"]),
        (np.array(["é".encode(), b"a"]), ("é", "a"), ["a", "é"]),
        (np.array(["2024-01-31", "1999-12-31"], "M8[D]"), ("2024-01-31 00:00:00", "1999-12-31"),
         ["1999-12-31", "2024-01-31"]),
    ],
)  # fmt: skip
def test_labels_of_numpy_files_are_known_in_csv(
    labels: Any, cells: tuple[str, str], names: list[str], tmp_path: Path
) -> None:
    np.savez(tmp_path / "t.npz", X=np.arange(8).reshape(4, 2) / 4, y=np.tile(labels, 2))
    dataset = import_dataset([str(tmp_path / "t.npz")], str(tmp_path / "d"), ImportOptions(task="classification"))
    assert list(dataset.classes) == names
    (tmp_path / "t.csv").write_text("f,g,y\n" + "".join(f"{row},0,{cells[row % 2]}\n" for row in range(4)))
    (rows,) = read_raw_rows(str(tmp_path / "t.csv"), dataset.encoding)
    assert rows.y is not None
    first = names.index(spell(cells[0]))
    assert rows.y.tolist() == [first, 1 - first] * 2


@pytest.mark.parametrize("write", WRITERS)
def test_features_that_are_booleans_are_1_and_0_in_every_file(write: Any, tmp_path: Path) -> None:
    flags = [True, False, False, True, None, True]
    table = pa.table({"size": pa.array(np.arange(ROWS) / 4), "is_old": pa.array(flags), "label": list("ababab")})
    file = write(table, tmp_path / "t.csv")
    encoding = import_dataset([file], str(tmp_path / "d"), ImportOptions(label="label", nulls="mean")).encoding
    assert encoding.columns[1].fill == pytest.approx((3 / 5,))
    for other in WRITERS:
        (rows,) = read_raw_rows(other(table, tmp_path / "other.csv"), encoding)
        assert rows.x[:, 1].tolist() == pytest.approx([1, 0, 0, 1, 3 / 5, 1])


@pytest.mark.parametrize(
    ("renaming", "classes"),
    [
        ({}, ("007", "042", "100")),
        ({"7": "42"}, ("042", "100")),
        ({"007": "042"}, ("042", "100")),
        ({"007": "7"}, ("7", "042", "100")),
        ({"7.0": "seven"}, ("042", "100", "seven")),
    ],
)
def test_labels_are_renamed_in_any_spelling(renaming: dict[str, str], classes: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n1,007\n2,042\n3,007\n4,100\n")
    options = ImportOptions(label="y", label_map=renaming, by_label=True)
    dataset = import_dataset([str(tmp_path / "t.csv")], str(tmp_path / "d"), options)
    assert dataset.classes == classes
    (rows,) = read_raw_rows(str(tmp_path / "t.csv"), dataset.encoding)
    assert rows.y is not None
    old = ["007", "042", "007", "100"]
    plain = {"7": "007", "7.0": "007", "007": "007"}
    new = {plain[name]: {"42": "042"}.get(text, text) for name, text in renaming.items()}
    assert [classes[label] for label in rows.y] == [new.get(name, name) for name in old]
