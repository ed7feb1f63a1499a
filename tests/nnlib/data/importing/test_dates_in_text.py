"""Dates and timestamps as features: CSV text means what the same column of a Parquet file means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main

DAYS = pd.date_range("2024-01-30", periods=8, freq="D")
TIMES = pd.date_range("2024-01-31 23:59:58.5", periods=8, freq="h")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table() -> pd.DataFrame:
    zoned = TIMES.tz_localize("Europe/Berlin")
    return pd.DataFrame({"day": DAYS, "time": TIMES, "zoned": zoned, "y": ["a", "b"] * 4})


def imported(file: str) -> np.ndarray:
    assert main(["data", "import", file, "-o", f"{file}.data", "--label", "y", "--dtype", "float64"]) == 0
    rows = pq.read_table(f"{file}.data/part-00000.parquet").sort_by("row")
    return np.array(rows["x"].to_pylist())


def test_csv_and_parquet_agree_with_pandas(capsys: pytest.CaptureFixture[str]) -> None:
    frame = table()
    frame.to_parquet("t.parquet", index=False)
    frame.to_csv("t.csv", index=False)
    wanted = np.column_stack([
        DAYS.astype("datetime64[ns]").astype("int64") / 1e9,
        TIMES.astype("datetime64[ns]").astype("int64") / 1e9,
        (TIMES - pd.Timedelta(hours=1)).astype("datetime64[ns]").astype("int64") / 1e9,
    ])  # fmt: skip
    np.testing.assert_array_equal(imported("t.parquet"), wanted)
    np.testing.assert_array_equal(imported("t.csv"), wanted)
    frame.astype({"day": str, "time": str, "zoned": str}).to_parquet("texts.parquet", index=False)
    np.testing.assert_array_equal(imported("texts.parquet"), wanted)


def test_a_model_of_a_parquet_file_predicts_the_same_rows_as_csv() -> None:
    frame = table()
    frame.to_parquet("t.parquet", index=False)
    frame.to_csv("t.csv", index=False)
    imported("t.parquet")
    Path("c.yaml").write_text(
        "data: {path: t.parquet.data, scale: standard}\nsplit: {train: 0.75}\ntrain: {epochs: 2}\n"
    )
    assert main(["train", "c.yaml", "--run-dir", "run"]) == 0
    for file in ("t.csv", "t.parquet"):
        assert main(["predict", "run", file, "-o", f"{file}.out.parquet"]) == 0
    assert pq.read_table("t.csv.out.parquet").equals(pq.read_table("t.parquet.out.parquet"))


@pytest.mark.parametrize("value", ["2024-02-30", "2024-01-31 25:00:00", "soon", "17"])
def test_what_is_no_date_is_named(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text(f"day,y\n2024-01-31,a\n2024-02-01,b\n{value},a\n")
    assert main(["data", "import", "t.csv", "-o", "out", "--label", "y"]) == 3
    message = capsys.readouterr().err
    assert "t.csv" in message
    assert "column day" in message


@pytest.mark.parametrize(
    ("first", "later"),
    [("true", "17"), ("2024-01-31", "17"), ("17", "true"), ("17", "2024-01-31"), ("false", "2024-01-31")],
)
def test_what_stands_alone_does_so_in_files_of_several_blocks(
    first: str, later: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = 3_000  # of 4 kB: several blocks of Arrow's
    padding = "x" * 4_000
    lines = [f"{first if row < rows - 5 else later},{row % 2},{padding}\n" for row in range(rows)]
    Path("t.csv").write_text("a,y,z\n" + "".join(lines))
    assert main(["data", "import", "t.csv", "-o", "out", "--label", "y", "--features", "a"]) == 3
    message = capsys.readouterr().err
    assert f"row {rows - 4}" in message
    assert repr(later) in message
