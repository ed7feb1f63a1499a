"""Which columns of an import need float64, and that their values stay what they were."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnlib
from jobs.__main__ import main
from nnlib.core.errors import DataError
from nnlib.data.dataset import Dataset
from nnlib.data.dataset_check import verify
from nnlib.data.feature_converter import Converter
from nnlib.data.importing.float_precision import BLOCK_ROWS, PrecisionCheck
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.scaling import FeatureStats, Scaler
from nnlib.data.shard_reader import ShardReader

pd: Any = pytest.importorskip("pandas")

Capture = pytest.CaptureFixture[str]


def features(address: str | Path) -> np.ndarray[Any, Any]:
    """The stored features of a dataset in the order of the input, shape (rows, features)."""
    dataset = Dataset.open(str(address))
    rows, blocks = [], []
    for shard in range(len(dataset.shards)):
        with ShardReader(dataset, shard) as reader:
            for index in range(len(reader.group_rows)):
                group = reader.row_group(index)
                rows.append(group.row)
                blocks.append(group.x)
    x: np.ndarray[Any, Any] = np.concatenate(blocks)[np.argsort(np.concatenate(rows))]
    return x


def needs(column: Any) -> bool:
    """Whether one column needs float64."""
    check = PrecisionCheck(1)
    check.add([np.asarray(column)[:, None]])
    return bool(check.needed[0])


RNG = np.random.default_rng(0)
WIDE = {
    "unix times": 1.7e9 + np.arange(100.0),
    "milliseconds": 1.7e12 + 1000.0 * np.arange(5.0),
    "integers": np.arange(2**24, 2**24 + 10),
    "unsigned": np.array([2**24 + 1], np.uint64),
    "one large whole number": np.array([1.0, 2.0, 2.0**24 + 1]),
    "cents": 1e7 + 0.01 * np.arange(50),
    "close to one": 1.0 + 1e-9 * np.arange(10),
    "tiny": 1e-50 * np.arange(1, 10),
    "above float32": np.array([1.0, 1e39]),
    "in a later block": np.concatenate([np.zeros(3 * BLOCK_ROWS), 1.7e9 + np.arange(10.0)]),
    "with missing values": np.array([np.nan, 1.7e9, 1.7e9 + 1.0, np.nan]),
}
NARROW = {
    "normal": RNG.standard_normal(100_000),
    "uniform": RNG.random(100_000),
    "decimals": np.round(RNG.normal(290.0, 10.0, 50_000), 2),
    "small integers": RNG.integers(-(2**24), 2**24, 1000),
    "float32": RNG.standard_normal(1000).astype(np.float32) * np.float32(1e9),
    "bytes": np.arange(256).astype(np.uint8),
    "truth": np.array([True, False]),
    "one value": np.full(100, 0.1),
    "far from zero": np.array([1.5e300 * 0.0, 3.0e20, 4.0e20]),
    "missing values": np.array([np.nan, 0.1, np.nan]),
}


@pytest.mark.parametrize("column", WIDE.values(), ids=WIDE)
def test_values_that_float32_would_merge_need_float64(column: Any) -> None:
    assert needs(column)


@pytest.mark.parametrize("column", NARROW.values(), ids=NARROW)
def test_ordinary_values_need_no_float64(column: Any) -> None:
    assert not needs(column)


def test_a_small_column_is_compared_exactly() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        column = np.round(rng.normal(0, 10.0 ** rng.integers(-3, 9), 50), int(rng.integers(0, 9)))
        merges = len(set(column.tolist())) > len({float(np.float32(value)) for value in column.tolist()})
        whole = any(value == int(value) and float(np.float32(value)) != value for value in column.tolist())
        assert needs(column) == (merges or whole), seed


def table(rows: int = 300, seed: int = 0) -> Any:
    """A table in which only column ``t`` needs float64."""
    rng = np.random.default_rng(seed)
    t = 1_700_000_000 + rng.integers(0, 1000, rows)
    return pd.DataFrame({"t": t, "a": rng.standard_normal(rows), "label": (t > 1_700_000_500).astype(int)})


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_every_format_keeps_the_values_of_pandas(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, source = table(), tmp_path / f"table.{suffix}"
    options = ["--label", "label"]
    if suffix == "csv":
        frame.to_csv(source, index=False)
    elif suffix == "parquet":
        frame.to_parquet(source)
    else:
        np.savez(source, X=frame[["t", "a"]].to_numpy(), y=frame.label)
        options = []
    assert main(["data", "import", str(source), "-o", str(tmp_path / "ds"), "--shards", "2", *options]) == 0
    said = capsys.readouterr().err
    assert "float64" in said and ("of t " in said or suffix == "npz")
    dataset = Dataset.open(str(tmp_path / "ds"))
    assert dataset.x_dtype == dataset.encoding.dtype == "float64" and verify(dataset) == []
    assert np.array_equal(features(tmp_path / "ds"), frame[["t", "a"]].to_numpy(np.float64))


def test_float32_can_be_forced_and_is_kept_where_it_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = table()
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame[["a", "label"]].to_csv(tmp_path / "a.csv", index=False)
    for name, options in (("t", ["--dtype", "float32"]), ("a", [])):
        out = str(tmp_path / name)
        assert main(["data", "import", str(tmp_path / f"{name}.csv"), "-o", out, "--label", "label", *options]) == 0
        assert "merge" not in capsys.readouterr().err
        assert Dataset.open(out).x_dtype == "float32"
    assert np.array_equal(features(tmp_path / "a")[:, 0], frame.a.to_numpy(np.float32))


@pytest.mark.parametrize("buffer_bytes", [1, 1 << 20])
def test_a_need_that_shows_late_changes_no_earlier_value(tmp_path: Path, buffer_bytes: int) -> None:
    """The first rows are in the buffer as float32, exact or rounded, when a later one needs float64."""
    rows = 150_000
    rng = np.random.default_rng(3)
    for name, first in (("rounded", rng.standard_normal(rows)), ("exact", rng.integers(0, 100, rows).astype(float))):
        frame = pd.DataFrame({"a": first, "b": rng.integers(0, 5, rows), "label": rng.integers(0, 2, rows)})
        frame.loc[rows - 1, "b"] = 2**24 + 1
        frame.to_parquet(tmp_path / f"{name}.parquet")
        options = ImportOptions(label="label", shards=3, buffer_bytes=buffer_bytes)
        dataset = import_dataset([str(tmp_path / f"{name}.parquet")], str(tmp_path / name), options)
        assert dataset.x_dtype == "float64"
        assert np.array_equal(features(tmp_path / name), frame[["a", "b"]].to_numpy(np.float64))


def test_jobs_and_one_process_write_the_same_bytes(tmp_path: Path) -> None:
    """Only the last of three files needs float64; missing values are filled with means of float64."""
    files = []
    for number in range(3):
        frame = table(seed=number)
        if number < 2:
            frame["t"] = frame.t % 1000
        frame.loc[number::7, "a"] = np.nan
        files.append(str(tmp_path / f"f{number}.csv"))
        frame.to_csv(files[-1], index=False)
    for runner in ("", "inline", "local"):
        chosen = ["-r", runner] if runner else []
        command = ["data", "import", *files, "-o", str(tmp_path / f"ds{runner}"), "--shards", "2", "--label", "label"]
        assert main([*command, "--nulls", "mean", "--name", "t", *chosen]) == 0
    assert Dataset.open(str(tmp_path / "ds")).x_dtype == "float64"
    for name in ("dataset.json", "part-00000.parquet", "part-00001.parquet"):
        assert filecmp.cmp(tmp_path / "ds" / name, tmp_path / "dsinline" / name, shallow=False)
        assert filecmp.cmp(tmp_path / "ds" / name, tmp_path / "dslocal" / name, shallow=False)
    whole = pd.concat([pd.read_csv(file) for file in files])
    assert np.allclose(features(tmp_path / "ds"), whole[["t", "a"]].fillna(whole.a.mean()), rtol=1e-15, atol=1e-15)


def test_scaling_is_in_float64_and_rounds_once() -> None:
    x = 1.7e9 + np.arange(5000.0)[:, None]
    scaler = Scaler.from_stats("standard", FeatureStats.of(x))
    assert scaler is not None
    expected = ((x - scaler.shift) * scaler.factor).astype(np.float32)
    wide = Converter(1.0, 0.0, scaler, np.float32, is_wide=True)
    assert np.array_equal(wide(x), expected) and len(np.unique(wide(x))) == 5000
    assert np.array_equal(wide(x[7:9]), expected[7:9])
    assert wide.key != Converter(1.0, 0.0, scaler, np.float32).key


def test_tiny_values_are_scaled_in_float64_and_huge_ones_refused() -> None:
    tiny = 1e-60 * np.arange(1.0, 6.0)[:, None]
    scaler = Scaler.from_stats("standard", FeatureStats.of(tiny), is_wide=True)
    assert scaler is not None
    scaled = Converter(1.0, 0.0, scaler, np.float32, is_wide=True)(tiny)
    assert np.allclose(scaled[:, 0], (np.arange(5.0) - 2.0) / np.sqrt(2.0))
    with np.errstate(over="ignore"), pytest.raises(DataError, match="feature 0 has values too large"):
        Scaler.from_stats("standard", FeatureStats.of(1e200 * np.arange(3.0)[:, None]), is_wide=True)


def test_training_says_where_unscaled_features_are_rounded(tmp_path: Path, capsys: Capture) -> None:
    table().to_csv(tmp_path / "t.csv", index=False)
    assert main(["data", "import", str(tmp_path / "t.csv"), "-o", str(tmp_path / "ds"), "--label", "label"]) == 0
    (tmp_path / "c.yaml").write_text(json.dumps({"data": {"path": str(tmp_path / "ds")}, "train": {"epochs": 1}}))
    for number, (option, is_said) in enumerate((("data.scale=none", True), ("data.scale=standard", False))):
        capsys.readouterr()
        main(["train", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / f"run{number}"), "--set", option])
        assert ("data.scale to standard" in capsys.readouterr().err) == is_said


def test_a_model_of_unix_times_predicts_the_same_in_every_way(tmp_path: Path) -> None:
    """Training, prediction from file, dataset and Python, and every exported file see the same distinct values."""
    frame = table(600)
    frame.to_csv(tmp_path / "t.csv", index=False)
    ds, run = str(tmp_path / "ds"), str(tmp_path / "run")
    assert main(["data", "import", str(tmp_path / "t.csv"), "-o", ds, "--shards", "3", "--label", "label"]) == 0
    (tmp_path / "c.yaml").write_text(
        json.dumps({"data": {"path": ds, "scale": "standard"}, "workers": 3, "train": {"epochs": 60}})
    )
    assert main(["train", str(tmp_path / "c.yaml"), "--run-dir", run]) == 0
    model, x = nnlib.load(run), frame[["t", "a"]].to_numpy()
    probabilities = model.predict_proba(x)
    assert (model.predict(x) == frame.label).mean() > 0.95
    scaler = model.trial.scaler
    assert scaler is not None and abs(scaler.shift[0] - frame.t.mean()) < 50.0
    assert 1.0 / scaler.factor[0] == pytest.approx(frame.t.std(), rel=0.1)  # of the training rows
    for source in (tmp_path / "t.csv", ds):
        assert main(["predict", run, str(source), "-o", str(tmp_path / "p.parquet")]) == 0
        predicted = pd.read_parquet(tmp_path / "p.parquet").sort_values("row")
        assert np.array_equal(np.array(predicted.probabilities.to_list()), probabilities)
    assert main(["export", run, "--format", "npz", "-o", str(tmp_path / "m.npz")]) == 0
    arrays = np.load(tmp_path / "m.npz")
    hidden = ((x - arrays["scaling.shift"]) * arrays["scaling.factor"]).astype(np.float32)
    hidden = np.maximum(hidden @ arrays["layer0.weight"] + arrays["layer0.bias"], 0)
    logits = hidden @ arrays["layer1.weight"] + arrays["layer1.bias"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(expected, probabilities, atol=1e-6)
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["export", run, "--format", "onnx", "-o", str(tmp_path / "m.onnx")]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    found, label = session.run(None, {"features": x.astype(np.float64)})
    assert np.allclose(found, probabilities, atol=1e-6) and np.array_equal(label, np.argmax(found, axis=1))


def test_a_float32_dataset_is_predicted_by_a_float64_model_and_the_other_way(tmp_path: Path) -> None:
    frame = table(300)
    frame.to_csv(tmp_path / "t.csv", index=False)
    for dtype in ("float32", "float64"):
        out = str(tmp_path / dtype)
        options = ["--dtype", dtype, "--label", "label"]
        assert main(["data", "import", str(tmp_path / "t.csv"), "-o", out, *options]) == 0
        config = {"data": {"path": out, "scale": "standard"}, "train": {"epochs": 2}}
        (tmp_path / "c.yaml").write_text(json.dumps(config))
        assert main(["train", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / f"run-{dtype}")]) == 0
    x = frame[["t", "a"]].to_numpy()
    for model, data in (("float32", "float64"), ("float64", "float32")):
        run, out = str(tmp_path / f"run-{model}"), str(tmp_path / "p.parquet")
        assert main(["predict", run, str(tmp_path / data), "-o", out]) == 0
        predicted = pd.read_parquet(out).sort_values("row")
        expected = nnlib.load(run).predict_proba(x.astype(np.float32))
        assert np.array_equal(np.array(predicted.probabilities.to_list()), expected)


def test_estimators_keep_distinct_values_apart() -> None:
    from sklearn.preprocessing import StandardScaler

    from nnlib.sklearn import NNJobsClassifier

    frame = table(400)
    x, y = frame[["t", "a"]].to_numpy(), frame.label.to_numpy()
    keys: dict[str, Any] = {"max_iter": 30, "random_state": 0, "hidden_layer_sizes": (10,)}
    model = NNJobsClassifier(scale="standard", **keys).fit(x, y)
    by_hand = NNJobsClassifier(**keys).fit(StandardScaler().fit_transform(x), y)
    assert np.allclose(model.predict_proba(x), by_hand.predict_proba(StandardScaler().fit_transform(x)), atol=1e-5)
    more = NNJobsClassifier(scale="standard", **keys)
    for _ in range(3):
        more.partial_fit(x, y, classes=[0, 1])
    assert len(np.unique(more.predict_proba(x)[:, 0])) > 200


@pytest.mark.parametrize("jobs", [(), ("-r", "inline")], ids=["one process", "jobs"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_import_says_which_integers_even_float64_rounds(
    tmp_path: Path, suffix: str, jobs: tuple[str, ...], capsys: Capture
) -> None:
    frame = pd.DataFrame(
        {"id": 1_700_000_000_123_456_789 + np.arange(10), "time": 2**53 - np.arange(10), "y": [0, 1] * 5}
    )
    frame["size"] = 1e30 * np.arange(10)
    file = str(tmp_path / f"f.{suffix}")
    frame.to_csv(file, index=False) if suffix == "csv" else frame.to_parquet(file)
    arguments = ["data", "import", file, "-o", str(tmp_path / "out"), "--label", "y"]
    assert main([*arguments, *jobs]) == 0
    said = capsys.readouterr().err
    assert "integers above 2**53 are rounded, so close ones become one value: id (" in said
    assert "float32 would merge different values of time (" in said
    assert len(np.unique(features(tmp_path / "out")[:, 0])) < 10
    assert main([*arguments, *jobs, "--features", "time,size", "--overwrite"]) == 0
    assert "2**53" not in capsys.readouterr().err
