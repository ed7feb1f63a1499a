"""`nnjobs evaluate`: runs side by side, the same splits in each, shorter runs read off the longest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from shards import write_dataset

from jobs.console.evaluation_summary import choice_lines, comparison_lines, diverged_lines, score_lines
from jobs.driver import driver
from jobs.experiments.evaluation import evaluate, measure_time
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError
from nnlib.evaluation.scores_table import Variant, checked_epochs, variants
from nnlib.evaluation.statistics import compare
from nnlib.run.directory import RunDirectory


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
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
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
        ({"train": {"epochs_per_round": "auto"}}, "auto"),
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
        assert accuracies(2, "independent", epoch) == [trial.test_accuracy for trial in alone.trials]
        # All workers draw the same sample: their number cannot matter.
        assert accuracies(2, "shared", epoch) == accuracies(1, "shared", epoch)
    assert (output / "figures/accuracy-by-epochs.svg").read_bytes().startswith(b"<?xml")
    assert (
        result["report"] == str(output / "report.html") and "Is it a difference?" in Path(result["report"]).read_text()
    )
    assert result["chosen"] is None
    # A run has one name: in the table of scores, in the comparison, in the progress and in the report.
    names = list(result["runs"])
    assert score_lines(config(dataset), result["scores"])[1].split()[1:] == names
    assert {pair[side] for pair in result["comparisons"] for side in ("first", "second")} == set(names)
    assert {name for name, _ in seen} == set(names)
    page = Path(result["report"]).read_text()
    assert all(f'<th scope="row" class="name">{name}</th>' in page for name in names)

    # The comparison is that of the last scores, split by split.
    pair = result["comparisons"][0]
    spec = RunDirectory.open(result["runs"]["shared-1"]).spec()
    ratio = sum(sum(trial.test_rows) for trial in spec.trials) / sum(map(spec.train_rows, spec.trials))
    expected = compare(accuracies(1, "shared", 4), accuracies(2, "shared", 4), ratio)
    assert (pair["first"], pair["second"], pair["splits"]) == ("shared-1", "shared-2", 3)
    assert (pair["difference"], pair["verdict"], expected.equal) == (0.0, "equal on every split", True)
    pair = result["comparisons"][1]
    expected = compare(accuracies(1, "shared", 4), accuracies(2, "independent", 4), ratio)
    assert (pair["difference"], pair["t"], pair["interval"]) == (expected.difference, expected.t, expected.interval)
    assert len(result["comparisons"]) == 3

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
    title, head, line = score_lines(config("x", evaluate={"published": "paper", "epochs": []}), rows)
    assert "2 trials" in title
    assert head.split("  ")[0] == "epochs"
    assert "91.00 ± 1.41 %" in line
    assert "80.67 %" in line and "84.06 %" in line


def test_times_are_measured_apart(dataset: str, tmp_path: Path) -> None:
    seconds = measure_time(config(dataset, evaluate={"streams": []}), str(tmp_path / "evaluation"))
    assert list(seconds) == [1, 2]
    for line in seconds.values():
        assert 0.0 < line[2] < line[4]


def test_the_comparison_is_told_in_words() -> None:
    pair = {
        "first": "shared-1",
        "second": "shared-4",
        "score": "accuracy",
        "verdict": "not distinguishable",
        "splits": 10,
        "difference": -0.004,
        "interval": (-0.009, 0.001),
        "t": -1.0,
        "p": 0.12345,
        "wilcoxon_p": 0.0001,
        "effect": -0.5,
    }
    title, _, line, note = comparison_lines([pair])
    assert "second less first" in title and "Nadeau and Bengio" in note
    for part in ("not distinguishable", "-0.40 points", "-0.90 to +0.10", "0.123", "< 0.001", "-0.50"):
        assert part in line
    undecided = comparison_lines([pair | dict.fromkeys(("difference", "interval", "p", "wilcoxon_p", "effect"))])
    assert undecided[2].count("–") == 6
    assert comparison_lines([]) == []


def test_a_sweep_is_scored_by_what_it_chose(dataset: str, tmp_path: Path) -> None:
    """Each run chooses by its validation rows; the table and the comparison hold the chosen trials alone."""
    settings = config(
        dataset,
        split={"validation": 0.2, "train": 0.6},
        evaluate={"streams": ["independent"], "epochs": []},
        sweep={"train.lr": [1e-7, 0.1]},
    )
    result = evaluate(settings, str(tmp_path / "swept"), report=False)
    assert result["report"] is None and len(result["scores"]) == 2 * 2 * 3
    assert list(result["chosen"]) == ["independent-1", "independent-2"]
    assert all(choice["overrides"] == {"train.lr": 0.1} for choice in result["chosen"].values())
    assert "train.lr 0.1" in choice_lines(result["chosen"])[0]
    means = [choice["test_accuracy"] for choice in result["chosen"].values()]
    table = score_lines(settings, result["scores"], result["chosen"])
    assert "of what was chosen" in table[0] and len(table) == 3
    assert all(f"{100 * mean:.2f} ±" in table[2] for mean in means)
    (pair,) = result["comparisons"]
    assert pair["difference"] == pytest.approx(means[1] - means[0])

    assert diverged_lines(result["diverged"]) == []
    unchosen = score_lines(settings, result["scores"], dict.fromkeys(result["chosen"]))
    assert len(unchosen) == 4 and "train.lr" in unchosen[2]


def test_trials_that_diverge_are_named(dataset: str, tmp_path: Path) -> None:
    settings = config(dataset, evaluate={"streams": ["independent"], "control": False}, sweep={"train.lr": [0.1, 1e6]})
    result = evaluate(settings, str(tmp_path / "diverging"), report=False)
    head, *lines = diverged_lines(result["diverged"])
    assert "last good models" in head
    assert len(lines) == len(settings.split.seeds)
    for seed, line in zip(settings.split.seeds, lines, strict=True):
        assert line.startswith(f"independent-2, split {seed}, train.lr 1000000.0: ")
