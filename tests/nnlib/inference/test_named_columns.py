"""A table is matched to a model by the names of its columns, and gives the numbers that its file gives."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

import nnlib
from jobs.__main__ import main
from nnlib.core.errors import DataError
from nnlib.core.notes import NnjobsNote
from nnlib.inference.trained_model import TrainedModel

ROWS, PIXELS = 120, 12
NUMBERS = ["age", "height", "pay"]
MIXED = [*NUMBERS, "soil"]


@dataclass
class Made:
    """Runs by name, and the rows they were made from: ``frame`` (numbers, a category, a label) and ``pixels``."""

    where: Path
    frame: pd.DataFrame
    pixels: Any

    def model(self, name: str) -> TrainedModel:
        return nnlib.load(str(self.where / name))

    def predicted(self, name: str, source: Path | str) -> Any:
        """The probabilities that the command writes."""
        output = self.where / "predicted.parquet"
        assert main(["predict", str(self.where / name), str(source), "-o", str(output)]) == 0
        return np.array(pq.read_table(output)["probabilities"].to_pylist(), np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    where = tmp_path_factory.mktemp("named")
    rng = np.random.default_rng(2)
    label = rng.integers(0, 3, ROWS)
    x = rng.standard_normal((ROWS, 3)) + 2.0 * np.eye(3)[label]
    frame = pd.DataFrame(x, columns=NUMBERS)
    frame["age"] = (frame["age"] * 10).round().astype(int)
    frame["soil"] = np.array(["clay", "sand", "peat, wet"])[rng.integers(0, 3, ROWS)]
    frame["class"] = np.array(["x", "y", "z"])[label]
    holes = frame.copy()
    holes.loc[::7, "pay"] = np.nan
    pixels = rng.integers(0, 256, (ROWS, PIXELS)).astype(np.uint8)
    np.savez(where / "pixels.npz", X=pixels, y=label)
    frame.to_csv(where / "mixed.csv", index=False)
    holes.to_csv(where / "holes.csv", index=False)
    frame[[*NUMBERS, "class"]].to_csv(where / "numbers.csv", index=False)
    frame[[*NUMBERS, "class"]].to_csv(where / "bare.csv", index=False, header=False)
    (where / "c.yaml").write_text("data: {path: none, scale: standard}\ntrain: {epochs: 2}\nmodel: {hidden: [4]}\n")
    for name, options in {
        "mixed": ["--label", "class", "--categorical", "soil"],
        "holes": ["--label", "class", "--categorical", "soil", "--nulls", "mean"],
        "numbers": ["--label", "class"],
        "bare": ["--label", "-1", "--no-header"],
        "pixels": [],
    }.items():
        data, source = str(where / f"{name}-data"), where / (f"{name}.csv" if name != "pixels" else "pixels.npz")
        assert main(["data", "import", str(source), "-o", data, *options]) == 0
        train = ["train", str(where / "c.yaml"), "--set", f"data.path={data}", "--run-dir", str(where / name)]
        assert main([*train, "--quiet"]) == 0
    return Made(where, frame, pixels)


def structured(frame: pd.DataFrame) -> Any:
    kinds = [(name, "U20" if frame[name].dtype.kind not in "if" else frame[name].dtype) for name in frame]
    return np.array(list(map(tuple, frame.itertuples(index=False))), dtype=kinds)


@dataclass
class Stream:
    """A table of another library, which speaks Arrow's protocol and nothing else."""

    table: pa.Table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


def polars(frame: pd.DataFrame) -> Any:
    return pytest.importorskip("polars").DataFrame({name: frame[name].to_list() for name in frame})


def duckdb(frame: pd.DataFrame) -> Any:
    module = pytest.importorskip("duckdb")
    return module.connect().from_arrow(pa.Table.from_pandas(frame, preserve_index=False))


FRAMES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "pandas with an index": lambda frame: frame.set_axis([f"r{k}" for k in range(len(frame))]),
    "pandas of Arrow's types": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "pandas categories": lambda frame: frame.astype({"soil": "category"}) if "soil" in frame else frame,
    "pandas sparse": lambda frame: frame.astype({"pay": pd.SparseDtype(float)}),
    "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "pyarrow batch": lambda frame: pa.RecordBatch.from_pandas(frame, preserve_index=False),
    "a stream": lambda frame: Stream(pa.Table.from_pandas(frame, preserve_index=False)),
    "polars": polars,
    "duckdb": duckdb,
    "numpy": structured,
    "arrays": lambda frame: {name: frame[name].to_numpy() for name in frame},
    "lists": lambda frame: {name: frame[name].tolist() for name in frame},
}


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("name", ["mixed", "numbers"])
def test_columns_are_found_by_name(made: Made, name: str, kind: str) -> None:
    model = made.model(name)
    columns = MIXED if name == "mixed" else NUMBERS
    frame = made.frame[columns]
    x = frame[NUMBERS].to_numpy(float)
    if name == "mixed":
        soils = model.spec.dataset.encoding.columns[3].categories
        x = np.column_stack([x, frame["soil"].to_numpy()[:, None] == np.array(soils)])
    expected = model.predict_proba(x)
    shuffled = made.frame[["soil", "class", *reversed(NUMBERS)]]  # another order, and columns that it does not need
    with warnings.catch_warnings(action="error"):
        for each in (frame, frame[columns[::-1]], shuffled):
            np.testing.assert_array_equal(model.predict_proba(FRAMES[kind](each)), expected)
    np.testing.assert_array_equal(model.predict(FRAMES[kind](shuffled)), np.array(["x", "y", "z"])[expected.argmax(1)])
    np.testing.assert_array_equal(made.predicted(name, made.where / f"{name}.csv"), expected)
    with pytest.raises(DataError, match=r"lacks the feature columns age(.|\n)*these are height, pay"):
        model.predict(FRAMES[kind](made.frame[["height", "pay"]]))


def test_other_names_are_no_order(made: Made) -> None:
    model = made.model("numbers")
    renamed = made.frame[NUMBERS].set_axis(["a", "b", "c"], axis=1)
    for frame in (renamed, renamed.set_axis(["Age", "Height", "Pay"], axis=1), renamed.set_axis([1, 3, 2], axis=1)):
        with pytest.raises(DataError, match="lacks the feature columns age, height, pay"):
            model.predict(frame)
    with pytest.raises(DataError, match="has this column twice"):
        model.predict(pa.table([pa.array([1.0])] * 4, names=[*NUMBERS, "age"]))


@pytest.mark.parametrize("prefix", ["", "column_", "column", "_c", "V", "f"])
@pytest.mark.parametrize("first", [0, 1])
def test_names_that_only_count_go_by_position(made: Made, prefix: str, first: int) -> None:
    model = made.model("numbers")
    x = made.frame[NUMBERS].to_numpy(float)
    names: Any = [f"{prefix}{k + first}" if prefix else k + first for k in range(3)]
    frame = pd.DataFrame(x, columns=names)
    np.testing.assert_array_equal(model.predict_proba(frame), model.predict_proba(x))
    np.testing.assert_array_equal(made.model("bare").predict_proba(frame), made.model("bare").predict_proba(x))
    with pytest.raises(DataError, match="lacks the feature columns"):
        model.predict(frame.assign(more=1.0))
    with pytest.raises(DataError, match="lacks the feature columns"):
        model.predict(frame.drop(columns=names[-1]))


def test_positions_of_a_file_without_names_are_names(made: Made) -> None:
    frame = pd.read_csv(made.where / "bare.csv", header=None)
    model = made.model("bare")
    expected = made.predicted("bare", made.where / "bare.csv")
    np.testing.assert_array_equal(model.predict_proba(frame), expected)
    np.testing.assert_array_equal(model.predict_proba(frame[[2, 3, 0, 1]]), expected)
    np.testing.assert_array_equal(model.predict_proba(frame.drop(columns=3)), expected)


def test_a_category_may_come_as_its_features(made: Made) -> None:
    model = made.model("mixed")
    spread = pd.get_dummies(made.frame[MIXED], columns=["soil"], prefix_sep="=")
    assert set(spread.columns) == set(model.feature_names)
    np.testing.assert_array_equal(model.predict_proba(spread), model.predict_proba(made.frame))
    np.testing.assert_array_equal(model.predict_proba(spread[model.feature_names].to_numpy(float)),
                                  model.predict_proba(made.frame))  # fmt: skip
    spread[spread.columns[::-1]].astype(float).to_csv(made.where / "spread.csv", index=False)
    np.testing.assert_array_equal(made.predicted("mixed", made.where / "spread.csv"), model.predict_proba(made.frame))


def test_missing_values_are_filled_or_refused_as_in_a_file(made: Made) -> None:
    frame = pd.read_csv(made.where / "holes.csv")
    model = made.model("holes")
    expected = made.predicted("holes", made.where / "holes.csv")
    np.testing.assert_array_equal(model.predict_proba(frame), expected)
    soils = model.spec.dataset.encoding.columns[3].categories
    x = np.column_stack([frame[NUMBERS], frame["soil"].to_numpy()[:, None] == np.array(soils)])
    np.testing.assert_array_equal(model.predict_proba(x.astype(float)), expected)
    masked = np.ma.masked_invalid(x.astype(float))
    np.testing.assert_array_equal(model.predict_proba(masked), expected)
    for name, x in (("mixed", frame), ("numbers", np.ma.masked_equal(np.ones((2, 3)), 1.0))):
        with pytest.raises(DataError, match=r"missing|nan"):
            made.model(name).predict(x)


def test_bad_values_of_a_frame_are_named(made: Made) -> None:
    model = made.model("mixed")
    for column, value, message in (
        ("soil", "moor", "row 6, column soil: 'moor' is none of the 3 known categories"),
        ("pay", np.inf, "row 6, column pay: inf is not a finite number"),
        ("pay", 1e300, "row 6, column pay: 1e.300 does not fit float32"),
        ("height", "tall", "row 6, column height: 'tall' is not a number"),
    ):
        frame = made.frame.astype({"height": str})
        frame.loc[5, column] = value
        with pytest.raises(DataError, match=message):
            model.predict(frame)
    with pytest.raises(DataError, match="cannot be read as a table"):
        model.predict(made.frame.assign(pay=[1.0, "x"] * (ROWS // 2)))
    with pytest.raises(DataError, match="different numbers of rows: age has 2, height has 3"):
        model.predict({"age": [1, 2], "height": [1, 2, 3]})
    with pytest.raises(DataError, match="must be a list or an array"):
        model.predict({"age": 1, "height": 2, "pay": 3, "soil": "clay"})


def test_pixels_in_frames_are_what_files_hold(made: Made) -> None:
    model, x = made.model("pixels"), made.pixels
    frame = pd.DataFrame(x, columns=[f"pixel{k}" for k in range(PIXELS)])
    frame["y"] = 1
    frame.to_csv(made.where / "pixels.csv", index=False)
    expected = model.predict_proba(x)
    assert set(model.feature_names) == {f"X[{k}]" for k in range(PIXELS)}
    with warnings.catch_warnings(action="error", category=NnjobsNote):
        for each in (frame, frame.drop(columns="y"), frame.astype(float), {"X": x, "other": x[:, 0]}, {"images": x}):
            np.testing.assert_array_equal(model.predict_proba(each), expected)
    named = pd.DataFrame(x, columns=model.feature_names)
    np.testing.assert_array_equal(model.predict_proba(named[model.feature_names[::-1]]), expected)
    np.testing.assert_array_equal(model.predict_proba(pd.DataFrame({"X": list(x)})), expected)
    np.testing.assert_array_equal(made.predicted("pixels", made.where / "pixels.csv"), expected)
    np.testing.assert_array_equal(made.predicted("pixels", made.where / "pixels.npz"), expected)
    for bad, message in ((256, "256"), (-1, "-1"), (0.5, "0.5")):
        with pytest.raises(DataError, match=rf"row 4, column X\[3\]: {message}.*whole number from 0 to 255"):
            wrong = frame.astype(float)
            wrong.iloc[3, 3] = bad
            model.predict(wrong)
    with pytest.raises(DataError, match="a row has 11 numbers, the model wants 12"):
        model.predict(frame[frame.columns[:11]])


def test_positions_are_said_of_files_only(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = made.frame[NUMBERS]
    frame.set_axis([0, 1, 2], axis=1).rename(columns=str).to_parquet(tmp_path / "counted.parquet")
    frame.to_parquet(tmp_path / "named.parquet")
    expected = made.model("numbers").predict_proba(frame)
    for name, said in (("counted", True), ("named", False)):
        capsys.readouterr()
        np.testing.assert_array_equal(made.predicted("numbers", tmp_path / f"{name}.parquet"), expected)
        assert ("by position" in capsys.readouterr().err) == said


def test_an_index_is_a_column_where_the_model_learnt_it(made: Made) -> None:
    model = made.model("numbers")
    expected = model.predict_proba(made.frame)
    np.testing.assert_array_equal(model.predict_proba(made.frame.set_index("age")), expected)
    np.testing.assert_array_equal(model.predict_proba(made.frame.set_index(["pay", "age"])), expected)


def test_sparse_matrices(made: Made) -> None:
    x = made.frame[NUMBERS].to_numpy(float)
    for convert in (scipy.sparse.csr_matrix, scipy.sparse.coo_array, scipy.sparse.csc_matrix):
        np.testing.assert_array_equal(
            made.model("numbers").predict_proba(convert(x)), made.model("numbers").predict_proba(x)
        )


def test_more_rows_than_are_computed_at_once_have_the_bits_of_the_file(made: Made, tmp_path: Path) -> None:
    frame = pd.concat([made.frame] * 500, ignore_index=True)
    frame.to_csv(tmp_path / "many.csv", index=False)
    model = made.model("numbers")
    expected = made.predicted("numbers", tmp_path / "many.csv")
    np.testing.assert_array_equal(model.predict_proba(frame), expected)
    np.testing.assert_array_equal(model.predict_proba(frame[NUMBERS].to_numpy()), expected)


def test_a_single_column_is_no_table(made: Made) -> None:
    for x in (pd.Series([1.0, 2.0, 3.0]), pa.chunked_array([[1.0, 2.0]]), pa.array([1.0])):
        with pytest.raises(DataError, match=r"shape \(\d,\), expected|cannot be read"):
            made.model("numbers").predict(x)


def imported(made: Made, frame: pd.DataFrame, *options: str) -> str:
    """A dataset of a frame."""
    source, data = made.where / "again.parquet", str(made.where / "again-data")
    frame.to_parquet(source)
    shutil.rmtree(data, ignore_errors=True)
    assert main(["data", "import", str(source), "-o", data, "--label", "class", *options]) == 0
    return data


@pytest.mark.parametrize("runner", [None, "inline"])
def test_a_dataset_with_columns_in_another_order(made: Made, tmp_path: Path, runner: str | None) -> None:
    expected = made.model("mixed").predict_proba(made.frame)

    def predicted(data: str, name: str) -> Any:
        output = tmp_path / name
        job = ["-r", runner] if runner else []
        assert main(["predict", str(made.where / "mixed"), data, "-o", str(output), *job]) == 0
        table = pq.read_table(output / "part-00000.parquet" if runner else output).sort_by("row")
        return np.array(table["probabilities"].to_pylist(), np.float32)

    data = imported(made, made.frame[["class", "soil", "pay", "age", "height"]].assign(more=1.0), "--categorical=soil")
    np.testing.assert_allclose(predicted(data, "order"), expected, rtol=1e-6)
    some = made.frame[made.frame["soil"] != "sand"]  # a category that no row has
    data = imported(made, some, "--categorical=soil")
    np.testing.assert_allclose(predicted(data, "some"), expected[made.frame["soil"] != "sand"], rtol=1e-6)


def test_a_dataset_without_the_columns(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moor = made.frame.replace({"soil": {"clay": "moor"}})
    digits = made.frame[[*NUMBERS, "class"]].set_axis(["0", "1", "2", "class"], axis=1)
    for frame, options, message in (
        (made.frame.rename(columns={"pay": "wage"}), ["--categorical=soil"], "lacks the feature columns pay"),
        (moor, ["--categorical=soil"], "'moor' is none of the categories that the model knows"),
        (digits.assign(more=1.0), [], "lacks the feature columns age, height, pay, soil=clay"),
    ):
        data = imported(made, frame, *options)
        for job in ([], ["-r", "inline"]):
            assert main(["predict", str(made.where / "mixed"), data, "-o", str(tmp_path / f"p{len(job)}"), *job]) == 3
            assert message in capsys.readouterr().err
    data = imported(made, digits)
    np.testing.assert_allclose(np.sort(made.predicted("numbers", data), axis=0),
                               np.sort(made.model("numbers").predict_proba(made.frame), axis=0), rtol=1e-6)  # fmt: skip
    assert "taken by position" in capsys.readouterr().err


def test_a_dataset_that_stores_other_numbers(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    shutil.copytree(made.where / "pixels-data", data)
    manifest = json.loads((data / "dataset.json").read_text())
    manifest["x_scale"] = 1.0
    (data / "dataset.json").write_text(json.dumps(manifest))
    assert main(["predict", str(made.where / "pixels"), str(data), "-o", str(tmp_path / "p.csv")]) == 3
    assert "stored * 1 + 0, those of the model's dataset stored * 0.00392157" in capsys.readouterr().err
