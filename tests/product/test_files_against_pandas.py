"""Generated files, read by nnjobs and by pandas or DuckDB: names, types and values agree, and a prediction of the file
is the prediction of the dataset that was imported from it, by every way in."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from file_cases import LABEL, FileCase, file_cases
from hypothesis import HealthCheck, Phase, given, note, settings

import nnlib
from jobs.__main__ import main
from nnlib.data.dataset import Dataset
from nnlib.data.importing.format_registry import FORMATS, detect_format
from nnlib.data.shard_reader import ShardReader

SAMPLE = 12
LONG = 1_000

_QUIET = settings(
    deadline=None,
    phases=[Phase.generate],  # a case is small as it is, and takes too long to shrink
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@given(case=file_cases())
@settings(_QUIET, max_examples=SAMPLE, derandomize=True)
def test_generated_files(case: FileCase) -> None:
    check(case)


@pytest.mark.full
@given(case=file_cases())
@settings(_QUIET, max_examples=LONG)
def test_many_generated_files(case: FileCase) -> None:
    check(case)


def check(case: FileCase) -> None:
    """Import, compare, train for one epoch, predict by every way in, compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / f"table{case.suffix}"
        case.write(source)
        note(f"{case.reading()} {case.importing()}")
        note(repr(source.read_bytes()[:400]))
        assert run("data", "import", source, "-o", folder / "dataset", "--shards", "2", *case.importing()) == 0
        dataset = Dataset.open(str(folder / "dataset"))
        if FORMATS[detect_format(str(source))].columns_in is not None and len(case.frame) % 3 == 0:
            by_job = folder / "by-job"
            assert run("data", "import", source, "-o", by_job, "--shards", "2", "-r", "inline", *case.importing()) == 0
            assert Dataset.open(str(by_job)).to_json() == dataset.to_json()
        x, y = _rows(dataset)
        expected = case.expected(source)
        _compare(case, dataset, x, y, expected)
        _predict_every_way(case, folder, source, expected)


def run(*arguments: object) -> int:
    """Run a command in this process and return its exit code."""
    return main([str(argument) for argument in arguments])


def _rows(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return features as float64 and labels, in the order of the input."""
    xs, ys, rows = [], [], []
    for shard in range(len(dataset.shards)):
        with ShardReader(dataset, shard) as reader:
            for group in range(dataset.shards[shard].row_groups):
                part = reader.row_group(group)
                xs.append(np.asarray(part.x, np.float64) * dataset.x_scale + dataset.x_offset)
                ys.append(np.asarray(part.y))
                rows.append(np.asarray(part.row))
    order = np.argsort(np.concatenate(rows))
    assert (np.sort(np.concatenate(rows)) == np.arange(dataset.rows)).all()
    return np.concatenate(xs)[order], np.concatenate(ys)[order]


def _compare(case: FileCase, dataset: Dataset, x: np.ndarray, y: np.ndarray, expected: pd.DataFrame) -> None:
    label = "y" if case.format == "npz" else case.name(LABEL)
    assert len(x) == len(expected)
    targets = expected[label]
    if case.classes:
        assert list(dataset.classes) == sorted(set(targets.astype(str)))
        assert [dataset.classes[index] for index in y] == list(targets.astype(str))
    else:
        np.testing.assert_array_equal(y, targets.to_numpy(np.float64))
    if case.format == "npz":
        np.testing.assert_array_equal(x, expected.drop(columns=label).to_numpy(np.float64).astype(dataset.x_dtype))
        return
    wanted = [name for name in expected.columns if name != label]
    assert sorted(column.name for column in dataset.encoding.columns) == sorted(wanted)
    texts = {case.name(name) for name in case.categorical}
    start = 0
    for column in dataset.encoding.columns:
        block = x[:, start : start + column.width]
        start += column.width
        values = expected[column.name]
        here = values.notna().to_numpy()
        assert (column.kind == "categorical") == (column.name in texts)
        if column.kind == "categorical":
            # pandas keeps blanks around a text, an import does not: no word here has any
            assert list(column.categories) == sorted(set(values[here].astype(str)))
            hot = [column.categories[index] for index in block[here].argmax(axis=1)]
            assert hot == list(values[here].astype(str))
            assert (block[here].sum(axis=1) == 1).all()
            shares = [float((values[here] == name).mean()) for name in column.categories]
            np.testing.assert_allclose(block[~here], np.tile(shares, (int((~here).sum()), 1)), rtol=1e-6)
            continue
        numbers = values.to_numpy(np.float64)
        np.testing.assert_array_equal(block[here, 0], numbers[here].astype(dataset.x_dtype).astype(np.float64))
        if not here.all():
            rounded = float(np.mean(numbers[here]))
            np.testing.assert_allclose(block[~here, 0], rounded, rtol=1e-5, atol=1e-5 * np.abs(numbers[here]).max())
        if dataset.x_dtype == "float32":  # no value may have become another's
            assert len(np.unique(numbers[here])) == len(np.unique(block[here, 0]))


def _predict_every_way(case: FileCase, folder: Path, source: Path, expected: pd.DataFrame) -> None:
    config = folder / "experiment.yaml"
    data = {"path": str(folder / "dataset"), "scale": "standard"}
    settings_ = {"name": "t", "workers": 2, "data": data, "split": {"train": 0.6, "seeds": [0]},
                 "model": {"hidden": []}, "train": {"epochs": 1, "batch_size": 4}}  # fmt: skip
    config.write_text(json.dumps(settings_))
    model = folder / "run"
    assert run("train", config, "--run-dir", model) == 0
    whole = _predicted(folder, model, folder / "dataset", "of-dataset")
    of_file = _predicted(folder, model, source, "of-file")
    # BLAS rounds a chunk of other rows differently.
    np.testing.assert_allclose(of_file, whole, rtol=1e-5, atol=1e-6 * np.abs(whole).max())
    if case.header and case.format not in ("npz",):
        turned = folder / f"turned{case.suffix}"
        case.write(turned, case.frame[list(reversed(case.frame.columns))])
        np.testing.assert_array_equal(of_file, _predicted(folder, model, turned, "of-turned"), "columns turned round")
        bare = folder / f"bare{case.suffix}"
        case.write(bare, case.frame.drop(columns=LABEL))
        np.testing.assert_array_equal(of_file, _predicted(folder, model, bare, "of-bare"), "without the label")
    loaded = nnlib.load(str(model))
    if case.format == "npz":
        features: object = expected.drop(columns="y").to_numpy(np.float64)
    else:
        features = expected
    outputs = loaded.predict_proba(features) if case.classes else loaded.predict(features)[:, None]
    np.testing.assert_array_equal(of_file, np.asarray(outputs, np.float64), "from Python")


def _predicted(folder: Path, model: Path, source: Path, name: str) -> np.ndarray:
    """Predict a file or dataset from the command line; outputs in the order of the input, float64."""
    output = folder / f"{name}.parquet"
    assert run("predict", model, source, "-o", output) == 0
    table = pq.read_table(output).to_pandas().sort_values("row")
    if "prediction" in table:
        outputs: np.ndarray = table[["prediction"]].to_numpy(np.float64)
        return outputs
    return np.array(table["probabilities"].tolist(), np.float64)
