"""Metrics of commands equal what scikit-learn says of the predictions they wrote; early stopping by metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as oracle

from jobs.__main__ import main

Commands = Callable[..., dict[str, Any]]


@pytest.fixture
def nnjobs(capsys: pytest.CaptureFixture[str]) -> Commands:
    def run(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        code = main([*map(str, arguments), "--json"])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        line: dict[str, Any] = json.loads(printed.out.splitlines()[-1])
        return line | {"stderr": printed.err}

    return run


def table(path: Path, classes: int, rows: int = 240) -> Path:
    """A CSV file: three features, a class (0: a number), the part of the row, an id."""
    rng = np.random.default_rng(classes)
    y = rng.integers(0, max(classes, 1), rows)
    x = rng.standard_normal((rows, 3)) + np.eye(3)[y % 3]
    target = [f"c{label}" for label in y] if classes else list(x @ [1.0, 2.0, -1.0] + rng.standard_normal(rows))
    parts = rng.choice(["train", "train", "validation", "test"], rows)
    lines = [f"{a:.4f},{b:.4f},{c:.4f},{t},{part}" for (a, b, c), t, part in zip(x, target, parts, strict=True)]
    path.write_text("\n".join(["a,b,c,target,part", *lines]) + "\n")
    return path


@pytest.fixture(scope="module", params=[2, 3, 7, 0], ids=["two", "three", "seven", "numbers"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    folder = tmp_path_factory.mktemp("metrics")
    source = table(folder / "rows.csv", request.param)
    arguments = ["data", "import", source, "-o", folder / "set", "--label", "target", "--keep", "part", "--shards", "4"]
    assert main([str(each) for each in arguments]) == 0
    return source, folder / "set", request.param


BASE = ("split.column=part", "model.hidden=[4]", "train.epochs=6", "train.epochs_per_round=2", "train.lr=0.02")


def train(where: Path, run: Path, *keys: str) -> list[str]:
    """The arguments of a training on the dataset ``where``."""
    config = where.parent / "c.yaml"
    config.write_text(f"data: {{path: {where}}}\n")
    return ["train", str(config), "--run-dir", str(run), *(f"--set={key}" for key in (*BASE, *keys))]


def by_scikit_learn(rows: list[dict[str, Any]], classes: int) -> dict[str, float]:
    """The metrics of predicted rows, each with its true ``target``."""
    if not classes:
        y, guess = ([row[name] for row in rows] for name in ("target", "prediction"))
        return {
            "r2": oracle.r2_score(y, guess),
            "mse": oracle.mean_squared_error(y, guess),
            "rmse": oracle.root_mean_squared_error(y, guess),
            "mae": oracle.mean_absolute_error(y, guess),
            "explained_variance": oracle.explained_variance_score(y, guess),
        }
    names = [f"c{label}" for label in range(classes)]
    y, guess = [row["target"] for row in rows], [row["class"] for row in rows]
    p = np.array([row["probabilities"] for row in rows])
    one_hot = np.array([[name == label for name in names] for label in y], int)
    ranked = (one_hot[:, 1], p[:, 1]) if classes == 2 else (one_hot, p)
    return {
        "accuracy": oracle.accuracy_score(y, guess),
        "balanced_accuracy": oracle.balanced_accuracy_score(y, guess),
        "f1_macro": oracle.f1_score(y, guess, average="macro"),
        "f1_weighted": oracle.f1_score(y, guess, average="weighted"),
        "log_loss": oracle.log_loss(y, p, labels=names),
        "roc_auc": oracle.roc_auc_score(*ranked),
        "average_precision": oracle.average_precision_score(*ranked),
    }


def assert_equal(result: dict[str, Any], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert result[f"test_{name}"] == pytest.approx(value, rel=1e-6), name  # targets are stored as float32


@pytest.mark.filterwarnings("ignore:The y_pr")
def test_every_command_says_what_scikit_learn_says(
    dataset: tuple[Path, Path, int], tmp_path: Path, nnjobs: Commands
) -> None:
    source, where, classes = dataset
    run = tmp_path / "run"
    trained = nnjobs(*train(where, run, "workers=2"))
    predicted = nnjobs("predict", run, source, "-o", tmp_path / "p.parquet", "--id", "target,part")
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert_equal(predicted, by_scikit_learn(rows, classes))
    test = by_scikit_learn([row for row in rows if row["part"] == "test"], classes)
    assert_equal(trained, test)
    assert_equal(trained["trials"][0], test)
    (last,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"round":3' in line]
    assert_equal({f"test_{name}": value for name, value in last["test"].items()}, test)
    nnjobs("export", run, "--format", "safetensors", "-o", tmp_path / "m.safetensors")
    card = json.loads((tmp_path / "m.safetensors.card.json").read_text())["metrics"]
    assert_equal({f"test_{name}": value for name, value in card["test"].items()}, test)
    assert_equal({f"test_{name}": each["mean"] for name, each in card["trials"].items()}, test)
    parts = nnjobs("predict", run, where, "-o", tmp_path / "parts", "-r", "inline", "--tasks", 3)
    same = nnjobs("predict", run, where, "-o", tmp_path / "whole.parquet")
    for name in test:
        assert parts[f"test_{name}"] == pytest.approx(same[f"test_{name}"], rel=1e-12)
    assert nnjobs("verify", run, "--all")["verified"]


def final(run: Path) -> Any:
    return json.loads((run / "final/metrics.json").read_text())


@pytest.mark.parametrize("average", [False, True], ids=["reset", "average"])
def test_runners_and_modes_agree(
    dataset: tuple[Path, Path, int], tmp_path: Path, nnjobs: Commands, average: bool
) -> None:
    """Also where the best round's model is kept, which another job scores in detail."""
    _, where, classes = dataset
    if classes not in (0, 3):
        pytest.skip("two datasets are enough")
    keys = ["workers=2", "train.keep=best", "train.epochs=6", f"train.lr={0.9 if classes else 0.06}"]
    ways = {"inline": "sync.mode=rounds", "collective": "sync.mode=collective"}
    if average:
        keys.append("train.optimizer_state=average")
    else:
        ways["local"] = "runtime.runner=local"
    runs = []
    for name, way in ways.items():
        nnjobs(*train(where, tmp_path / name, *keys, way))
        runs.append(final(tmp_path / name))
        assert all(trial["test"]["details"] for trial in runs[-1]["trials"])
    assert all(run == runs[0] for run in runs)
    assert nnjobs("verify", tmp_path / "inline", "--all")["verified"]


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "balanced_accuracy", "rmse", "explained_variance"])
def test_training_stops_by_any_metric(
    dataset: tuple[Path, Path, int], tmp_path: Path, nnjobs: Commands, metric: str
) -> None:
    _, where, classes = dataset
    if classes not in (0, 3):
        pytest.skip("two datasets are enough")
    if (metric in ("rmse", "explained_variance")) == bool(classes):
        code = main(train(where, tmp_path / "run", f"train.stop={{patience: 2, metric: {metric}}}"))
        assert code == 2
        return
    keys = (f"train.stop={{patience: 2, metric: {metric}}}", "train.keep=best", "train.epochs=40", "train.lr=0.3")
    run = tmp_path / "run"
    result = nnjobs(*train(where, run, *keys, "workers=2"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    course = {line["round"]: line["validation"][metric] for line in lines}
    pick = min if metric in ("log_loss", "rmse") else max
    best = pick(course.values())
    assert result["trials"][0]["round"] == next(round_ for round_, value in course.items() if value == best)
    if result["trials"][0]["status"] == "stopped":
        assert max(course) == result["trials"][0]["round"] + 2
    assert nnjobs("verify", run, "--all")["verified"]


def test_a_class_without_validation_rows_stops_with_the_reason(tmp_path: Path, nnjobs: Commands) -> None:
    source = table(tmp_path / "rows.csv", 3)
    lines = source.read_text().splitlines()
    source.write_text("\n".join(line.replace("c2,validation", "c2,train") for line in lines) + "\n")
    imported = ["data", "import", source, "-o", tmp_path / "set", "--label", "target", "--keep", "part"]
    assert main([str(each) for each in imported]) == 0
    result = nnjobs(*train(tmp_path / "set", tmp_path / "run", "train.stop={patience: 1, metric: roc_auc}"))
    assert result["trials"][0]["status"] == "stopped"
    assert "no validation roc_auc" in final(tmp_path / "run")["trials"][0]["reason"]
