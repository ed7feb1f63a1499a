"""`nnjobs evaluate`: runs side by side, the same splits in each, shorter runs read off the longest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from shards import write_dataset

from jobs import driver
from jobs.evaluate import evaluate, measure_time, summary_lines
from nnlib.config.schema import Config
from nnlib.errors import ConfigError
from nnlib.evaluation import Variant, checked_epochs, variants


def config(path: str, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "name": "compare",
        "data": {"path": path},
        "model": {"hidden": [4]},
        "split": {"seeds": [0, 1, 2]},
        "sampling": {"fraction": 0.9},
        "train": {"epochs": 4, "epochs_per_round": 2},
        "evaluate": {"workers": [2], "streams": ["shared", "independent"], "epochs": [2, 4]},
    }
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    return Config.model_validate(values)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 180)
    x = (rng.normal(size=(3, 5))[y] + rng.normal(size=(180, 5))).astype(np.float32)
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, x, y, shards=4, classes=3)
    return str(where)


def test_one_worker_stands_beside_and_is_run_once() -> None:
    names = [variant.name for variant in variants(config("x"))]
    assert names == ["shared-1", "shared-2", "independent-2"]
    without = config("x", evaluate={"control": False, "streams": []})
    assert variants(without) == [Variant(2, "independent")]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"evaluate": {"epochs": [3]}}, "no average"),
        ({"evaluate": {"epochs": [6]}}, "more than train.epochs"),
        ({"train": {"schedule": {"kind": "cosine"}}}, "cosine"),
    ],
)
def test_epochs_that_no_run_passes_through_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        checked_epochs(config("x", **changes))


def test_scores_are_those_of_single_runs(dataset: str, tmp_path: Path) -> None:
    output = tmp_path / "evaluation"
    seen: list[tuple[str, int]] = []
    result = evaluate(config(dataset), str(output), progress=lambda variant, done, _: seen.append((variant.name, done)))
    table = pq.read_table(output / "results.parquet").to_pylist()
    assert table == result["scores"] == json.loads((output / "results.json").read_bytes())["scores"]
    assert len(table) == 3 * 3 * 2  # runs, splits, epochs
    assert ("shared-2", 2) in seen

    def accuracies(workers: int, streams: str, epoch: int) -> list[float]:
        return [
            row["accuracy"]
            for row in table
            if (row["workers"], row["streams"], row["epoch"]) == (workers, streams, epoch)
        ]

    for epoch in (2, 4):
        alone = driver.train(
            config(
                dataset,
                workers=2,
                run_dir=str(tmp_path / f"alone-{epoch}"),
                train={"epochs": epoch},
                evaluate={"epochs": []},
            )
        )
        assert accuracies(2, "independent", epoch) == [trial["test_accuracy"] for trial in alone["trials"]]
        # All workers draw the same sample: their number cannot matter.
        assert accuracies(2, "shared", epoch) == accuracies(1, "shared", epoch)
    assert (output / "figures/accuracy-by-epochs.svg").read_bytes().startswith(b"<?xml")

    before = {path: path.stat().st_mtime_ns for path in output.rglob("rounds/*/*")}
    assert evaluate(config(dataset), str(output))["scores"] == result["scores"]
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("rounds/*/*")}


def test_the_table_shows_means_and_published_numbers() -> None:
    base = {"fold": 0, "overrides": "{}", "round": 1, "r2": None, "loss": 0.1, "validation_loss": None}
    rows = [
        {
            **base,
            "workers": 1,
            "streams": "shared",
            "split": split,
            "epoch": 100,
            "accuracy": value,
            "seconds": None,
            "run_dir": "r",
        }
        for split, value in enumerate((0.9, 0.92))
    ]
    title, head, line = summary_lines(config("x", evaluate={"published": "paper", "epochs": []}), rows)
    assert "2 trials" in title
    assert head.split("  ")[0] == "epochs"
    assert "91.00 ± 1.41 %" in line
    assert "80.67 %" in line and "84.06 %" in line


def test_times_are_measured_apart(dataset: str, tmp_path: Path) -> None:
    seconds = measure_time(config(dataset, evaluate={"streams": []}), str(tmp_path / "evaluation"))
    assert list(seconds) == [1, 2]
    for line in seconds.values():
        assert 0.0 < line[2] < line[4]
