"""A second learner, registered by one line, trains, scores and predicts as numpy's does: nothing else knows which.

The commands with it run in processes, for a kind is registered before the schema of configurations is made from its
table (`reference_learner.LINE`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import reference_learner
from processes import started
from safetensors.numpy import load_file
from shards import write_dataset

ROWS, FEATURES, CLASSES = 90, 4, 3
COLLECTIVE = {"sync": {"mode": "collective"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, ROWS)
    x = (rng.normal(size=(CLASSES, FEATURES))[y] + rng.normal(size=(ROWS, FEATURES))).astype(np.float32)
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, x, y, shards=3, row_group_rows=16, classes=CLASSES)
    return str(where)


def nnjobs(*arguments: str) -> dict[str, Any]:
    """What a command that knows the kind `reference` prints."""
    script = Path(reference_learner.__file__)
    product = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(product), *sys.path])}
    with started(
        [sys.executable, script, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors.decode()
    result: dict[str, Any] = json.loads(output.decode().splitlines()[-1])
    return result


def train(kind: str, data: str, run: Path, sections: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "data": {"path": data, "scale": "standard"},
        "workers": 3,
        "run_dir": str(run),
        "split": {"validation": 0.2},
        "model": {"kind": kind, "hidden": [5, 4], "activation": "tanh", "dtype": "float64"},
        "train": {
            "epochs": 6,
            "epochs_per_round": 2,
            "batch_size": 8,
            "lr": 0.2,
            "l2": 0.1,
            "class_weights": "balanced",
        },
    }
    for name, section in sections.items():
        document[name] = document.get(name, {}) | section
    config = run.with_suffix(".json")
    config.write_text(json.dumps(document))
    return nnjobs("train", str(config), "--json", "-q")


def weights(run: Path) -> Any:
    (model,) = (run / "final").glob("*.safetensors")
    arrays = load_file(model)
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def scores(run: Path) -> list[Any]:
    """The scores and training losses of every round."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [[line[part] for part in ("test", "validation", "training")] for line in lines]


def assert_near(ours: Any, theirs: Any) -> None:
    """Equal, but for numbers, which are equal up to rounding; seconds may be any."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs.keys() - {"seconds"}:
            assert_near(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_near(mine, other)
    else:
        assert ours == (pytest.approx(theirs, rel=1e-10, abs=1e-14) if isinstance(theirs, float) else theirs)


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"optimizer": "sgd"}, "model": {"activation": "sigmoid"}},
        {"train": {"optimizer": "momentum", "optimizer_state": "average"}},
        COLLECTIVE,
        {"sync": {"mode": "collective", "every": "batch"}, "train": {"optimizer_state": "average"}},
        {"sync": {"mode": "collective", "overlap": 1}, "model": {"activation": "relu"}},
    ],
    ids=["rounds", "rounds-averaged-state", "collective", "collective-gradients", "collective-overlap"],
)
def test_it_trains_and_scores_to_numpys_numbers(data: str, tmp_path: Path, sections: dict[str, Any]) -> None:
    for kind in ("mlp", "reference"):
        train(kind, data, tmp_path / kind, sections)
    expected = weights(tmp_path / "mlp")
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(weights(tmp_path / "reference"), expected, rtol=1e-10, atol=1e-13)
    assert_near(scores(tmp_path / "reference"), scores(tmp_path / "mlp"))


def test_it_predicts_numpys_predictions_and_can_be_verified(data: str, tmp_path: Path) -> None:
    tables, results = [], []
    for kind in ("mlp", "reference"):
        train(kind, data, tmp_path / kind, {})
        output = tmp_path / f"{kind}.parquet"
        results.append(nnjobs("predict", str(tmp_path / kind), data, "-o", str(output), "--json"))
        tables.append(pq.read_table(output))
    ours, theirs = (np.array(table.column("probabilities").to_pylist()) for table in reversed(tables))
    assert ours.shape == (ROWS, CLASSES) and np.abs(theirs - 1 / CLASSES).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert tables[0].column("class") == tables[1].column("class")
    assert results[0]["test_accuracy"] == results[1]["test_accuracy"]
    assert results[0]["test_loss"] == pytest.approx(results[1]["test_loss"], rel=1e-10)
    assert nnjobs("verify", str(tmp_path / "reference"), "--all", "--json")["problems"] == []
