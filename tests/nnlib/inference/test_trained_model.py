"""A trained run, used from Python and over files, gives the values of a plain forward pass, or one clear error."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shards import write_dataset

import nnlib
from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.core.errors import DataError, MismatchError, NnjobsError, UsageError
from nnlib.core.run_result import RunResult
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.split.rule import TEST
from nnlib.inference.prediction_file import predict_to_parquet
from nnlib.inference.trained_model import TrainedModel, class_labels

ROWS, FEATURES, CLASSES = 400, 6, 7


def settings(where: Path, run: Path, **sections: Any) -> Config:
    document: dict[str, Any] = {
        "data": {"path": str(where)},
        "run_dir": str(run),
        "workers": 2,
        "split": {"seeds": [0, 3]},
        "model": {"hidden": [8]},
        "train": {"epochs": 6, "epochs_per_round": 3, "lr": 0.1},
    }
    for section, values in sections.items():
        document[section] = {**document.get(section, {}), **values} if isinstance(values, dict) else values
    return Config.model_validate(document)


@dataclass
class Trained:
    """A run, the rows it was made from, and what its training printed."""

    run: str
    data: Path
    x: Any
    y: Any
    result: RunResult


def blobs(classes: int = CLASSES) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, ROWS)
    x = (rng.standard_normal((classes, FEATURES))[y] * 2 + rng.standard_normal((ROWS, FEATURES))).astype(np.float32)
    return x, y


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two trials with fitted scaling, 7 classes."""
    where = tmp_path_factory.mktemp("classes")
    x, y = blobs()
    write_dataset(where / "data", x, y, shards=4, row_group_rows=30, classes=CLASSES)
    result = driver.train(settings(where / "data", where / "run", data={"scale": "standard"}))
    return Trained(str(where / "run"), where / "data", x, y, result)


@pytest.fixture(scope="session")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Features stored as small integers."""
    where = tmp_path_factory.mktemp("pixels")
    x, y = blobs()
    x = np.clip(x * 25 + 128, 0, 255).astype(np.uint8)
    write_dataset(where / "data", x, y, shards=2, classes=CLASSES, dtype="uint8", scale=1 / 255)
    result = driver.train(settings(where / "data", where / "run", train={"epochs": 3}))
    return Trained(str(where / "run"), where / "data", x, y, result)


@pytest.fixture(scope="session")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    where = tmp_path_factory.mktemp("regression")
    x, _ = blobs()
    y = x @ np.arange(FEATURES) + 3.0
    write_dataset(where / "data", x, y, shards=2)
    result = driver.train(settings(where / "data", where / "run", train={"lr": 0.003}))
    return Trained(str(where / "run"), where / "data", x, y, result)


def plain(model: TrainedModel, x: Any) -> Any:
    """The last layer's values in float64, from the stored weights and scaling alone."""
    layout = model.spec.model(model.trial).layout
    views = {name: view.astype(np.float64) for name, view in layout.views(model.weights).items()}
    scaler = model.trial.scaler
    a = x.astype(np.float64)
    if scaler is not None:
        a = (a - scaler.shift) * scaler.factor
    hidden = np.maximum(a @ views["layer0.weight"] + views["layer0.bias"], 0)
    return hidden @ views["layer1.weight"] + views["layer1.bias"]


@pytest.mark.parametrize("trial", [0, 1])
def test_probabilities_are_those_of_a_plain_forward_pass(run: Trained, trial: int) -> None:
    model = nnlib.load(run.run, trial=trial)
    z = plain(model, run.x)
    expected = np.exp(z - z.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    probabilities = model.predict_proba(run.x)
    assert probabilities.shape == (ROWS, CLASSES) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(model.predict(run.x), probabilities.argmax(axis=1))
    assert np.issubdtype(model.predict(run.x).dtype, np.integer)
    np.testing.assert_array_equal(model.predict(run.x.astype(np.float64)), model.predict(run.x))
    assert model.classes == tuple(str(label) for label in range(CLASSES)) and model.features == FEATURES


def test_test_rows_score_what_the_run_says(run: Trained) -> None:
    for trial in (0, 1):
        model = nnlib.load(run.run, trial=trial)
        test = model.trial.rule.parts(np.arange(ROWS), run.y, {}) == TEST
        accuracy = (model.predict(run.x[test]) == run.y[test]).mean()
        assert accuracy == pytest.approx(run.result.trials[trial].test_accuracy, abs=1e-12)
        assert accuracy > 0.5  # it has learned something


def test_more_rows_than_a_chunk_and_none(run: Trained) -> None:
    model = nnlib.load(run.run)
    many = np.concatenate([run.x] * 6)
    np.testing.assert_allclose(model.predict_proba(many), np.concatenate([model.predict_proba(run.x)] * 6), atol=1e-6)
    assert model.predict_proba(run.x[:0]).shape == (0, CLASSES)
    assert model.predict(run.x[:0]).shape == (0,)
    assert model.predict(run.x[:1].tolist()).shape == (1,)


def test_small_integers_are_taken_as_stored(pixels: Trained) -> None:
    model = nnlib.load(pixels.run)
    stored = model.predict_proba(pixels.x)
    values = pixels.x.astype(np.float32) * np.float32(1 / 255)
    for same in (pixels.x.astype(np.int64), values, values.astype(np.float64)):
        assert model.predict_proba(same).tobytes() == stored.tobytes()
    with pytest.raises(
        DataError, match="the model's values are from 0 to 1; pixels from 0 to 255 are taken as integers"
    ):
        model.predict(pixels.x.astype(np.float32))
    assert model.predict_proba(2 * values).tobytes() != stored.tobytes()  # brighter than white is a value
    for bad in (256, -1):
        x = pixels.x.astype(np.int64)
        x[1050 % len(x), 2] = bad
        with pytest.raises(DataError, match=f"feature 2 is {bad}: the model takes whole numbers from 0 to 255"):
            model.predict(x)


def test_regression_predicts_values(regression: Trained) -> None:
    model = nnlib.load(regression.run)
    target = model.trial.target
    assert target is not None
    values = plain(model, regression.x)[:, 0] * target.spread + target.shift
    np.testing.assert_allclose(model.predict(regression.x), values, rtol=1e-4, atol=1e-4)
    assert model.predict(regression.x).dtype == np.float64
    assert model.classes == ()
    with pytest.raises(UsageError, match="use predict"):
        model.predict_proba(regression.x)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.zeros((3, FEATURES + 1)), r"shape \(3, 7\), expected \(rows, 6\)"),
        (np.zeros(FEATURES), r"shape \(6,\)"),
        (np.zeros((1, 2, FEATURES)), "shape"),
        ([["a"] * FEATURES], "dtype <U1"),
        ([[None] * FEATURES], "dtype object"),
        (np.zeros((2, FEATURES), complex), "dtype complex"),
        ([[0.0] * FEATURES, [0, 1, np.nan, 3, 4, 5]], "row 1: feature 2 is nan"),
        ([[0, 1, 2, 3, 4, -np.inf]], "row 0: feature 5 is -inf"),
    ],
)
def test_what_cannot_be_predicted_is_refused(run: Trained, x: Any, text: str) -> None:
    model = nnlib.load(run.run)
    for use in (model.predict, model.predict_proba):
        with pytest.raises(DataError, match=text):
            use(x)


def test_what_cannot_be_loaded_is_refused(run: Trained, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run here"):
        nnlib.load(str(tmp_path))
    for trial in (2, -1):
        with pytest.raises(UsageError, match="trials 0 to 1"):
            nnlib.load(run.run, trial=trial)


def test_an_unfinished_run_gives_its_newest_model(run: Trained, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.run, copy)
    shutil.rmtree(copy / "final")
    np.testing.assert_array_equal(nnlib.load(str(copy)).weights, nnlib.load(run.run).weights)
    shutil.rmtree(copy / "rounds/000002")
    assert (nnlib.load(str(copy)).weights != nnlib.load(run.run).weights).any()
    shutil.rmtree(copy / "rounds")
    with pytest.raises(UsageError, match="no model yet"):
        nnlib.load(str(copy))


def test_a_damaged_final_model_is_refused(run: Trained, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.run, copy)
    path = copy / "final/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # the last trial's weights: loading the first finds it too
    path.write_bytes(bytes(data))
    with pytest.raises(MismatchError, match="model_sha256"):
        nnlib.load(str(copy))
    path.write_bytes(bytes(data[:-1]))
    with pytest.raises(MismatchError, match="safetensors"):
        nnlib.load(str(copy))


def read(path: Path) -> Any:
    return pq.read_table(path)


def test_a_dataset_into_a_file(run: Trained, tmp_path: Path) -> None:
    result = predict_to_parquet(run.run, str(run.data), f"{tmp_path}/new folder/out.parquet")
    table = read(tmp_path / "new folder/out.parquet")
    assert table.column_names == ["row", "class", "probability", "probabilities"]
    assert json.loads(table.schema.metadata[b"classes"]) == [str(label) for label in range(CLASSES)]
    rows = table["row"].to_numpy()
    assert sorted(rows.tolist()) == list(range(ROWS))
    expected = nnlib.load(run.run).predict_proba(run.x)[rows]
    probabilities = np.array(table["probabilities"].to_pylist(), np.float32)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(table["class"].to_pylist(), [str(k) for k in probabilities.argmax(axis=1)])
    np.testing.assert_array_equal(table["probability"].to_numpy(), probabilities.max(axis=1))
    assert (result["rows"], result["labelled_rows"], result["trial"]) == (ROWS, ROWS, 0)
    assert result["output"] == f"{tmp_path}/new folder/out.parquet"
    assert result["test_accuracy"] == (probabilities.argmax(axis=1) == run.y[rows]).mean()
    again = predict_to_parquet(run.run, str(run.data), f"{tmp_path}/again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "new folder/out.parquet").read_bytes()
    assert again["test_loss"] == result["test_loss"]


def test_the_test_rows_alone_score_as_the_run_did(run: Trained, tmp_path: Path) -> None:
    model = nnlib.load(run.run)
    test = model.trial.rule.parts(np.arange(ROWS), run.y, {}) == TEST
    write_dataset(tmp_path / "held out", run.x[test], run.y[test], shards=3, classes=CLASSES)
    result = predict_to_parquet(run.run, str(tmp_path / "held out"), f"{tmp_path}/out.parquet")
    entry = run.result.trials[0]
    assert result["test_accuracy"] == entry.test_accuracy
    assert result["test_loss"] == pytest.approx(entry.test_loss, rel=1e-6)


def test_regression_into_a_file(regression: Trained, tmp_path: Path) -> None:
    result = predict_to_parquet(regression.run, str(regression.data), f"{tmp_path}/out.parquet")
    table = read(tmp_path / "out.parquet")
    assert table.column_names == ["row", "prediction"]
    expected = nnlib.load(regression.run).predict(regression.x)[table["row"].to_numpy()]
    np.testing.assert_allclose(table["prediction"].to_numpy(), expected, rtol=1e-5, atol=1e-5)
    assert result["test_mse"] == pytest.approx(np.square(expected - regression.y[table["row"].to_numpy()]).mean())


NAMES = ("ash", "birch", "cedar")


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on an imported CSV file with text labels and a categorical feature."""
    where = tmp_path_factory.mktemp("imported")
    x, y = blobs(len(NAMES))
    write_csv(where / "trees.csv", x, y)
    options = ImportOptions(label="tree", categorical=("soil",), shards=2)
    import_dataset([str(where / "trees.csv")], str(where / "data"), options)
    result = driver.train(settings(where / "data", where / "run"))
    return Trained(str(where / "run"), where / "data", x, y, result)


def write_csv(path: Path, x: Any, y: Any, *, labels: bool = True) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([f"f{j}" for j in range(x.shape[1])] + ["soil"] + ["tree"] * labels)
        for index, (row, label) in enumerate(zip(x.tolist(), y, strict=True)):
            writer.writerow([*map(repr, row), ("clay", "sand")[index % 2], *[NAMES[label]] * labels])


def test_raw_files_give_what_the_dataset_gives(imported: Trained, tmp_path: Path) -> None:
    labelled = predict_to_parquet(imported.run, str(imported.data), f"{tmp_path}/dataset.parquet")
    write_csv(tmp_path / "with.csv", imported.x, imported.y)
    write_csv(tmp_path / "without.csv", imported.x, imported.y, labels=False)
    columns = {f"f{j}": imported.x[:, j] for j in range(FEATURES)}
    columns["soil"] = np.array(["clay", "sand"])[np.arange(ROWS) % 2]
    pq.write_table(pa.table(columns), tmp_path / "raw.parquet")
    expected = {row["row"]: row for row in read(tmp_path / "dataset.parquet").to_pylist()}
    for name in ("with.csv", "without.csv", "raw.parquet"):
        result = predict_to_parquet(imported.run, str(tmp_path / name), f"{tmp_path}/out.parquet")
        rows = read(tmp_path / "out.parquet").to_pylist()
        assert [row["row"] for row in rows] == list(range(ROWS))
        for row in rows:
            assert row["class"] == expected[row["row"]]["class"]
            assert row["probabilities"] == pytest.approx(expected[row["row"]]["probabilities"], abs=1e-6)
        assert ("labelled_rows" in result) == (name == "with.csv")
        if name == "with.csv":
            assert result["test_accuracy"] == labelled["test_accuracy"]
    x = np.column_stack([imported.x, 1 - np.arange(ROWS) % 2, np.arange(ROWS) % 2])
    predicted = nnlib.load(imported.run).predict(x)
    assert predicted.tolist() == [expected[row]["class"] for row in range(ROWS)]
    assert set(predicted.tolist()) <= set(NAMES)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("f0,f1\n1,2\n", DataError, "lacks the feature columns"),
        ("f0,f1,f2,f3,f4,f5,soil\n1,2,3,4,5,6,clay\n1,2,3,4,5,,clay\n", DataError, "missing"),
        ("f0,f1,f2,f3,f4,f5,soil\n1,2,3,4,5,6,clay\n1,2,3,4,5,six,clay\n", DataError, "six"),
        ("f0,f1,f2,f3,f4,f5,soil\n1,2,3,4,5,6,peat\n", DataError, "peat"),
        ("f0,f1,f2,f3,f4,f5,soil\n", DataError, "no rows"),
        ("", NnjobsError, "bad.csv"),
    ],
)
def test_bad_files_leave_no_output(
    imported: Trained, tmp_path: Path, text: str, error: type[NnjobsError], message: str
) -> None:
    (tmp_path / "bad.csv").write_text(text)
    (tmp_path / "out").mkdir()
    with pytest.raises(error, match=message):
        predict_to_parquet(imported.run, str(tmp_path / "bad.csv"), f"{tmp_path}/out/p.parquet")
    assert list((tmp_path / "out").iterdir()) == []


def test_failures_leave_the_old_output(run: Trained, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "p.parquet").write_bytes(b"old")
    x, y = run.x[:50].copy(), run.y[:50]
    write_dataset(tmp_path / "narrow", x[:, 1:], y, classes=CLASSES)
    write_dataset(tmp_path / "bytes", np.ones((50, FEATURES), np.uint8), y, classes=CLASSES, dtype="uint8")
    x[40, 3] = np.nan
    write_dataset(tmp_path / "nan", x, y, classes=CLASSES)
    write_dataset(tmp_path / "cut", run.x, run.y, classes=CLASSES, shards=2)
    (tmp_path / "cut/part-00001.parquet").write_bytes(b"PAR1")
    cases = {
        "narrow": "has 5 float32 features",
        "bytes": "uint8",
        "nan": "row 40",
        "cut": "part-00001.parquet",
        "nowhere": "nowhere",
    }
    for name, text in cases.items():
        with pytest.raises(NnjobsError, match=text):
            predict_to_parquet(run.run, str(tmp_path / name), f"{out}/p.parquet")
        assert [path.name for path in out.iterdir()] == ["p.parquet"]
        assert (out / "p.parquet").read_bytes() == b"old"
    with pytest.raises(UsageError, match="name a file"):
        predict_to_parquet(run.run, str(run.data), f"{out}/")


def test_class_labels() -> None:
    assert class_labels(("0", "1", "-2")).tolist() == [0, 1, -2]
    assert class_labels(("0", str(2**64 - 1))).tolist() == [0, 2**64 - 1]
    assert class_labels(("-1", str(2**63))).tolist() == ["-1", str(2**63)]  # no dtype holds both
    assert class_labels(("0", "01")).tolist() == ["0", "01"]
    assert class_labels((str(2**63 - 1), "-1")).dtype == np.int64
    assert class_labels((str(2**63), "1")).tolist() == [2**63, 1]
    assert class_labels((str(2**63), "-1")).tolist() == [str(2**63), "-1"]
    assert class_labels((str(2**64), "1")).tolist() == [str(2**64), "1"]
    assert class_labels(("1", "two")).tolist() == ["1", "two"]
    assert class_labels(("-", "1")).tolist() == ["-", "1"]
    assert class_labels(("\u0663", "1")).tolist() == ["\u0663", "1"]  # a digit, but not one of ours
