"""Predictions as CSV, TSV, JSON lines and Parquet say the same, with columns of the input beside them."""

from __future__ import annotations

import gzip
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import nnlib
from jobs.__main__ import main
from nnlib.core.errors import UsageError
from nnlib.inference.prediction_formats import choose_format
from nnlib.inference.prediction_parts import part_name

CLASSES = ('al"pha, x', "p_b", "row")
"""Names that a CSV header or JSON must quote, and names of our own columns."""


@dataclass
class Made:
    """A folder with input files, datasets and runs: ``run`` (3 classes), ``two`` (2), ``line`` (regression)."""

    where: Path
    frame: pd.DataFrame

    def path(self, name: str) -> str:
        return str(self.where / name)

    def predict(self, run: str, source: str, output: Path | str, *options: str) -> int:
        return main(["predict", self.path(run), self.path(source), "-o", str(output), *options])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    where = tmp_path_factory.mktemp("outputs")
    rng = np.random.default_rng(1)
    index = rng.integers(0, 3, 90)
    x = rng.standard_normal((90, 3)) + 2.0 * np.eye(3)[index]
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    frame["class"] = np.array(CLASSES)[index]
    frame["id"] = [f"{number:03d}" for number in range(90)]
    frame["n"] = np.arange(90) * 10**15
    frame["price"] = x.sum(axis=1)
    frame.to_csv(where / "rows.csv", index=False)
    frame.to_parquet(where / "rows.parquet")
    frame[frame["class"] != "row"].to_csv(where / "two.csv", index=False)
    (where / "c.yaml").write_text("data: {path: none}\ntrain: {epochs: 2, lr: 0.05}\nmodel: {hidden: [4]}\n")
    for name, source, label in (
        ("run", "rows.csv", "class"),
        ("two", "two.csv", "class"),
        ("line", "rows.csv", "price"),
    ):
        data = str(where / f"{name}-data")
        options = ["--label", label, "--features", "a,b,c", "--keep", "id,n", "--shards", "2"]
        assert main(["data", "import", str(where / source), "-o", data, *options]) == 0
        train = [
            "train",
            str(where / "c.yaml"),
            "--quiet",
            "--set",
            f"data.path={data}",
            "--run-dir",
            str(where / name),
        ]
        assert main(train) == 0
    return Made(where, frame)


def flat(path: Path) -> pd.DataFrame:
    """A Parquet prediction with a column for each class, as the other formats have it, read by pandas."""
    table = pq.read_table(path)
    frame = table.to_pandas()
    if "probabilities" in frame:
        for place, name in enumerate(json.loads(table.schema.metadata[b"classes"])):
            frame[f"p_{name}"] = [values[place] for values in frame["probabilities"]]
        frame = frame.drop(columns="probabilities")
    return frame


def read(path: Path) -> pd.DataFrame:
    """A prediction of any format, in the terms of `flat`."""
    if path.suffix in (".parquet", ".pq"):
        return flat(path)
    if path.suffix in (".jsonl", ".ndjson"):
        rows = []
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            rows.append(row | {f"p_{name}": value for name, value in row.pop("probabilities", {}).items()})
        return pd.DataFrame(rows)
    separator = "\t" if path.suffix == ".tsv" else ","
    return pd.read_csv(path, sep=separator, dtype={"id": str, "class": str}, keep_default_na=False)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "ndjson", "pq"])
@pytest.mark.parametrize(("run", "source"), [("run", "rows.parquet"), ("line", "rows.parquet"), ("run", "run-data")])
def test_every_format_says_the_same(made: Made, tmp_path: Path, suffix: str, run: str, source: str) -> None:
    assert made.predict(run, source, tmp_path / "whole.parquet", "--id", "id,n") == 0
    assert made.predict(run, source, tmp_path / f"p.{suffix}", "--id", "id", "--id", "n") == 0
    expected, actual = read(tmp_path / "whole.parquet"), read(tmp_path / f"p.{suffix}")
    assert list(actual.columns) == list(expected.columns)
    for name in expected:
        values = actual[name].to_numpy().astype(expected[name].to_numpy().dtype)  # float32 survives the text
        np.testing.assert_array_equal(values, expected[name].to_numpy())
    if source == "rows.parquet":
        assert actual["id"].tolist() == made.frame["id"].tolist()
        assert actual["n"].tolist() == made.frame["n"].tolist()
        model = nnlib.load(made.path(run))
        x = made.frame[["a", "b", "c"]].to_numpy()
        if run == "run":
            np.testing.assert_array_equal(actual["class"], model.predict(x))
            spread = [f"p_{name}" for name in model.classes]
            np.testing.assert_allclose(actual[spread].to_numpy(), model.predict_proba(x), atol=1e-6)
        else:
            np.testing.assert_array_equal(actual["prediction"], model.predict(x))


def test_kept_columns_never_take_the_name_of_a_prediction(made: Made, tmp_path: Path) -> None:
    for source in ("rows.csv", "rows.parquet", "run-data"):
        assert made.predict("run", source, tmp_path / "p.csv", "--id", "class,id") == 0
        found = read(tmp_path / "p.csv").set_index("row").sort_index()
        assert list(found.columns[:4]) == ["input_class", "id", "class", "probability"]
        assert found["input_class"].tolist() == made.frame["class"].tolist()
        assert found["id"].tolist() == made.frame["id"].tolist()
    assert made.predict("run", "rows.csv", tmp_path / "p.csv", "--id=-3,a") == 0  # by number, and a feature
    assert list(read(tmp_path / "p.csv").columns[1:3]) == ["id", "a"]


def test_a_number_with_missing_values_is_kept_whole(made: Made, tmp_path: Path) -> None:
    frame = made.frame.copy()
    frame["big"] = pd.array([2**62 + number if number % 2 else None for number in range(90)], "Int64")
    frame.to_parquet(tmp_path / "big.parquet")
    data = str(tmp_path / "data")
    keep = ["--label", "class", "--features", "a,b,c", "--keep", "big"]
    assert main(["data", "import", str(tmp_path / "big.parquet"), "-o", data, *keep]) == 0
    for source in (str(tmp_path / "big.parquet"), data):
        for output in ("p.parquet", "p.csv"):
            assert made.predict("run", source, tmp_path / output, "--id", "big") == 0
        table = pq.read_table(tmp_path / "p.parquet").sort_by("row")
        assert table["big"].to_pylist() == [2**62 + number if number % 2 else None for number in range(90)]
        found = pd.read_csv(tmp_path / "p.csv", dtype={"big": "Int64"}).sort_values("row")
        assert found["big"].equals(frame["big"].set_axis(found.index))


def test_the_most_probable_classes(made: Made, tmp_path: Path) -> None:
    assert made.predict("run", "rows.csv", tmp_path / "all.parquet") == 0
    assert made.predict("run", "rows.csv", tmp_path / "top.parquet", "--top", "2") == 0
    assert made.predict("run", "rows.csv", tmp_path / "top.csv", "--top", "2") == 0
    whole, top = (
        pq.read_table(tmp_path / "all.parquet").to_pandas(),
        pq.read_table(tmp_path / "top.parquet").to_pandas(),
    )
    columns = ["row", "class", "probability", "class_1", "probability_1", "class_2", "probability_2"]
    assert list(top.columns) == columns
    names = nnlib.load(made.path("run")).classes
    for expected, row in zip(whole["probabilities"], top.itertuples(), strict=True):
        pairs = sorted(zip((-expected).tolist(), range(3), strict=True))[:2]
        assert [row.class_1, row.class_2] == [names[place] for _, place in pairs]
        assert [row.probability_1, row.probability_2] == [np.float32(-value) for value, _ in pairs]
    text = read(tmp_path / "top.csv")
    assert list(text.columns) == columns
    assert text["class_2"].tolist() == top["class_2"].tolist()
    assert text["probability_2"].to_numpy().astype(np.float32).tolist() == top["probability_2"].tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.9, 1.0])
def test_a_threshold(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], threshold: float) -> None:
    model = nnlib.load(made.path("two"))
    frame = made.frame[made.frame["class"] != "row"]
    probabilities = model.predict_proba(frame[["a", "b", "c"]].to_numpy())
    expected = np.where(probabilities[:, 1] >= threshold, model.classes[1], model.classes[0])
    options = ["--threshold", str(threshold), "--json"]
    assert made.predict("two", "two.csv", tmp_path / "p.jsonl", *options) == 0
    captured = capsys.readouterr()
    assert f"class {model.classes[1]} where its probability is at least {threshold:g}" in captured.err
    found = read(tmp_path / "p.jsonl")
    assert found["class"].tolist() == expected.tolist()
    chosen = np.where(
        found["class"] == model.classes[1], found[f"p_{model.classes[1]}"], found[f"p_{model.classes[0]}"]
    )
    np.testing.assert_array_equal(found["probability"], chosen)
    assert json.loads(captured.out)["test_accuracy"] == (expected == frame["class"].to_numpy()).mean()


def test_a_job_does_the_same(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--id", "id,class", "--top", "1", "--threshold", "0.9", "--json"]
    assert made.predict("two", "two-data", tmp_path / "one.parquet", *options) == 0
    whole = json.loads(capsys.readouterr().out)
    for runner in ("inline", "local"):
        assert made.predict("two", "two-data", tmp_path / runner, "-r", runner, *options) == 0
        parted = json.loads(capsys.readouterr().out)
        parts = [pq.read_table(tmp_path / runner / part_name(shard)) for shard in range(2)]
        assert pd.concat([part.to_pandas() for part in parts], ignore_index=True).equals(
            pq.read_table(tmp_path / "one.parquet").to_pandas()
        )
        assert parted["test_accuracy"] == whole["test_accuracy"]
    assert made.predict("two", "two-data", tmp_path / "inline", "-r", "inline", "--id", "id") == 3  # other predictions
    assert "no predictions of this model" in capsys.readouterr().err
    assert made.predict("two", "two-data", tmp_path / "inline", "-r", "inline", *options) == 0
    assert json.loads(capsys.readouterr().out)["made"] == 0


def test_standard_output(made: Made, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    for options, name in (([], "p.csv"), (["--format", "jsonl"], "p.jsonl"), (["--format", "parquet"], "p.parquet")):
        assert made.predict("run", "rows.csv", "-", *options) == 0
        captured = capsysbinary.readouterr()
        assert made.predict("run", "rows.csv", tmp_path / name) == 0
        assert captured.out == (tmp_path / name).read_bytes()
        assert b"90 rows on standard output" in captured.err
        capsysbinary.readouterr()


def test_standard_output_that_is_a_text_stream(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert made.predict("line", "rows.csv", "-") == 0
    assert len(pd.read_csv(io.StringIO(stream.getvalue()))) == 90


def test_compressed_text(made: Made, tmp_path: Path) -> None:
    for name in ("p.csv", "p.jsonl"):
        assert made.predict("run", "rows.csv", tmp_path / name) == 0
        assert made.predict("run", "rows.csv", tmp_path / f"{name}.gz") == 0
        assert gzip.decompress((tmp_path / f"{name}.gz").read_bytes()) == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("p.json", [], ".json names no format: use --format"),
        ("p.xlsx", [], ".xlsx names no format"),
        ("p.gz", [], ".gz names no format"),
        ("p.parquet.gz", [], "names no format"),
        ("-", ["--json"], "both write to standard output"),
        ("-", ["-r", "inline"], "a folder"),
        ("p.csv", ["-r", "inline"], "not csv"),
        ("p", ["-r", "inline", "--format", "jsonl"], "not jsonl"),
        ("p.csv", ["--id", "nothing"], "there is no column 'nothing'"),
        ("p", ["--id", "nothing", "-r", "inline"], "there is no column 'nothing'; columns: id, n, class"),
        ("p.csv", ["--top", "4"], "the model has 3 classes"),
        ("p.csv", ["--threshold", "0.5"], "this one has 3 classes"),
        ("p", ["--threshold", "0.5", "-r", "inline"], "this one has 3 classes"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_written(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, options: list[str], message: str
) -> None:
    target = output if output == "-" else tmp_path / output
    assert made.predict("run", "run-data", target, *options) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_threshold_is_a_probability(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("1.5", "-1", "nan"):
        assert made.predict("two", "two.csv", tmp_path / "p.csv", f"--threshold={value}") == 2
        assert "from 0 to 1" in capsys.readouterr().err
    for option in ("--threshold=0.5", "--top=1"):
        assert made.predict("line", "rows.csv", tmp_path / "p.csv", option) == 2
        assert "predicts a number" in capsys.readouterr().err


def test_an_error_on_the_way_leaves_the_old_file(made: Made, tmp_path: Path) -> None:
    text = (made.where / "rows.csv").read_text().splitlines()
    rows = [*text, *text[1:] * 100, "1,2,three,,,,"]
    (tmp_path / "bad.csv").write_text("\n".join(rows) + "\n")
    for name in ("p.csv", "p.jsonl", "p.parquet", "p.csv.gz"):
        (tmp_path / name).write_bytes(b"old")
        assert made.predict("run", str(tmp_path / "bad.csv"), tmp_path / name) == 3
        assert (tmp_path / name).read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 5


def test_kept_times_are_read_as_times_by_others(made: Made, tmp_path: Path) -> None:
    """Times at midnight and others in one column: pandas takes one form for all of it."""
    times = pd.date_range("2024-02-28", periods=90, freq="6h")
    columns = {"time": times, "zoned": times.tz_localize("UTC"), "day": times.date, "ms": times.astype("M8[ms]")}
    made.frame.assign(**columns).to_parquet(tmp_path / "rows.parquet")
    for name in ("p.csv", "p.jsonl", "p.parquet"):
        assert made.predict("run", str(tmp_path / "rows.parquet"), tmp_path / name, "--id", ",".join(columns)) == 0
        found = read(tmp_path / name)
        for column, values in columns.items():
            assert (pd.to_datetime(found[column]).to_numpy() == pd.to_datetime(pd.Series(values)).to_numpy()).all()


@pytest.mark.parametrize(
    ("output", "wanted", "expected"),
    [
        ("p", None, "parquet"),
        ("dir.csv/p", None, "parquet"),
        ("hdfs://host/p.CSV", None, "csv"),
        ("p.csv.gz", None, "csv"),
        ("p.ndjson", None, "jsonl"),
        ("p.dat", "parquet", "parquet"),
        ("-", None, "csv"),
    ],
)
def test_the_format_follows_the_name(output: str, wanted: Any, expected: str) -> None:
    assert choose_format(output, wanted) == expected
    with pytest.raises(UsageError, match="unknown format"):
        choose_format(output, "xml")
