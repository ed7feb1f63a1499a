"""Folders of files, nested and partitioned: DuckDB and pandas write and read them, too."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from nnlib.data.dataset import Dataset
from nnlib.data.importing.hive_partitions import partition_names, partition_values

RANDOM = np.random.default_rng(4)
FRAME = pd.DataFrame(
    {
        "a": RANDOM.standard_normal(60),
        "v": list(RANDOM.standard_normal((60, 2))),
        "y": RANDOM.choice(["u", "v"], 60),
        "year": RANDOM.choice([2023, 2024], 60),
        "city": RANDOM.choice(["Köln", "a b/c", "x=y"], 60),
    }
)

both = pytest.mark.parametrize("runner", [[], ["-r", "inline"]], ids=["one process", "a job"])


def imported(tmp_path: Path, *arguments: str | Path, code: int = 0) -> pd.DataFrame:
    """The rows of the dataset that the command makes, in the order of the input, with named features."""
    assert main(["data", "import", *map(str, arguments), "-o", str(tmp_path / "ds"), "--overwrite"]) == code
    dataset = Dataset.open(str(tmp_path / "ds"))
    rows = pq.read_table(tmp_path / "ds" / dataset.shards[0].name).sort_by("row")
    frame = pd.DataFrame(np.array(rows["x"].to_pylist()), columns=dataset.encoding.feature_names)
    frame["y"] = [dataset.classes[y] for y in rows["y"].to_pylist()]
    return frame


def partitioned(folder: Path, frame: pd.DataFrame = FRAME) -> Path:
    folder.mkdir(exist_ok=True)
    duckdb.sql(f"copy frame to '{folder}' (format parquet, partition_by (year, city), overwrite_or_ignore)")
    return folder


@both
def test_hive_partitions_are_columns(tmp_path: Path, runner: list[str]) -> None:
    folder = partitioned(tmp_path / "in")
    for name in ("_SUCCESS", ".part.crc", "_metadata"):
        (folder / name).write_bytes(b"x")
    found = imported(tmp_path, folder, "--label", "y", "--categorical", "city", *runner)
    relation = duckdb.sql(f"select * from read_parquet('{folder}/**/*.parquet', hive_partitioning=true)")
    assert relation is not None
    expected = pd.get_dummies(relation.df(), columns=["city"], prefix_sep="=")
    vectors = np.array(expected.pop("v").tolist())
    expected[["v[0]", "v[1]"]] = vectors
    columns = sorted(found.columns)
    assert columns == sorted(expected.columns)
    found, expected = found[columns].sort_values("a"), expected[columns].sort_values("a")
    assert found.pop("y").tolist() == expected.pop("y").tolist()
    assert np.allclose(found.to_numpy(float), expected.to_numpy(float), rtol=1e-6)


def test_a_job_makes_the_same_bytes(tmp_path: Path) -> None:
    folder = partitioned(tmp_path / "in")
    options = [str(folder), "--label", "y", "--categorical", "city", "--shards", "3"]
    assert main(["data", "import", *options, "-o", str(tmp_path / "one")]) == 0
    assert main(["data", "import", *options, "-o", str(tmp_path / "job"), "-r", "inline"]) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "job").iterdir())
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "job" / name).read_bytes() for name in names)


def test_a_partition_may_be_the_label(tmp_path: Path) -> None:
    folder = partitioned(tmp_path / "in")
    found = imported(tmp_path, folder, "--label", "year", "--features", "a")
    by_a = dict(zip(FRAME.a.astype(np.float32).tolist(), FRAME.year.astype(str), strict=True))
    assert [by_a[a] for a in found["a"].tolist()] == found["y"].tolist()


def test_predictions_read_the_partitions_of_new_files(tmp_path: Path) -> None:
    partitioned(tmp_path / "in")
    imported(tmp_path, tmp_path / "in", "--label", "y", "--categorical", "city")
    (tmp_path / "c.yaml").write_text(f"data: {{path: {tmp_path / 'ds'}, scale: standard}}\nmodel: {{hidden: [4]}}\n")
    assert main(["train", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run")]) == 0
    whole = predicted(tmp_path, tmp_path / "in")
    assert len(whole) == 60
    flat = pa.concat_tables(
        pq.ParquetFile(file).read() for file in sorted((tmp_path / "in").rglob("*.parquet"), key=str)
    )
    values = [partition_values(str(file)) for file in sorted((tmp_path / "in").rglob("*.parquet"), key=str)]
    counts = [pq.ParquetFile(file).metadata.num_rows for file in sorted((tmp_path / "in").rglob("*.parquet"), key=str)]
    for name in ("year", "city"):
        flat = flat.append_column(name, pa.array(np.repeat([value[name] for value in values], counts).tolist()))
    pq.write_table(flat, tmp_path / "flat.parquet")
    assert predicted(tmp_path, tmp_path / "flat.parquet") == whole
    one = sorted((tmp_path / "in").rglob("*.parquet"), key=str)[0]
    assert predicted(tmp_path, one) == whole[: counts[0]]


def predicted(tmp_path: Path, source: Path) -> list[str]:
    assert main(["predict", str(tmp_path / "run"), str(source), "-o", str(tmp_path / "p.csv")]) == 0
    return (
        (tmp_path / "p.csv").read_text().split("\n")[1:-1]
        if False
        else [line.split(",", 1)[1] for line in (tmp_path / "p.csv").read_text().splitlines()[1:]]
    )


@both
def test_csv_partitions(tmp_path: Path, runner: list[str]) -> None:
    frame = FRAME.drop(columns=["v", "city"])
    (tmp_path / "in").mkdir()
    duckdb.sql(f"copy frame to '{tmp_path / 'in'}' (format csv, partition_by (year), overwrite_or_ignore)")
    found = imported(tmp_path, tmp_path / "in", "--label", "y", *runner).sort_values("a")
    expected = frame.sort_values("a")
    assert np.allclose(found["a"], expected["a"]) and found["year"].tolist() == expected["year"].tolist()
    assert found["y"].tolist() == expected["y"].tolist()


@both
def test_nested_folders_and_empty_files(tmp_path: Path, runner: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.Table.from_pandas(FRAME[["a", "v", "y"]], preserve_index=False)
    for name, part in (("b/c/2.parquet", table[20:]), ("a/1.parquet", table[:20]), ("a/0.parquet", table[:0])):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, tmp_path / "in" / name)
    (tmp_path / "in" / "b" / "empty.parquet").write_bytes(b"")
    (tmp_path / "in" / "README").write_text("by hand")
    (tmp_path / "in" / "_delta_log").mkdir()
    (tmp_path / "in" / "_delta_log" / "0.parquet").write_bytes(b"x")
    found = imported(tmp_path, tmp_path / "in", "--label", "y", *runner)
    assert np.allclose(found["a"], FRAME["a"].astype(np.float32))
    said = " ".join(capsys.readouterr().err.split())
    assert "empty.parquet" in said and "README" in said


def test_files_without_suffixes_are_known_by_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pandas(FRAME[["a", "y"]]), tmp_path / "in" / "000000_0")
    assert len(imported(tmp_path, tmp_path / "in", "--label", "y")) == 60


def test_folders_that_do_not_fit_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    partitioned(tmp_path / "in")
    pq.write_table(pa.Table.from_pandas(FRAME[["a", "v", "y"]]), tmp_path / "in" / "more.parquet")
    command = ["data", "import", str(tmp_path / "in"), "--label", "y", "-o", str(tmp_path / "ds")]
    assert main(command) == 3
    assert "=..." in capsys.readouterr().err


def test_values_of_folders() -> None:
    path = "/data/k=1/year=2024/city=a%20b%2Fc/z=__HIVE_DEFAULT_PARTITION__/p=x=y/part.parquet"
    expected = {"k": "1", "year": "2024", "city": "a b/c", "z": None, "p": "x=y"}
    assert partition_values(path) == expected
    assert partition_names(["/data/k=1"], [path]) == ("year", "city", "z", "p")
    assert partition_names(["/data/k=1/year=*/*"], [path]) == ("year", "city", "z", "p")
    assert partition_names([path], [path]) == ()
