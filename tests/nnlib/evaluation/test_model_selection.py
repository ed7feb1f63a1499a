"""A sweep chooses by its validation rows; what it scores on the test rows cannot matter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from records import final_trial
from shards import write_dataset

from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.core.run_result import ChosenCombination
from nnlib.evaluation.model_selection import choice_text, choose, chosen_combination, combinations_of
from nnlib.run.final_result import FinalTrial
from nnlib.run.score_summary import ClassificationSummary, RegressionSummary


def entry(
    lr: float, validation: float | None, test: float = 0.5, *, loss: float = 1.0, status: str = "active"
) -> FinalTrial:
    """A trial of a classification sweep as final scores have it."""
    held_out = ClassificationSummary(9, None if validation is None else loss, validation)
    return final_trial({"train.lr": lr}, held_out, ClassificationSummary(9, None, test), status=status)


def chosen(*entries: FinalTrial) -> float | None:
    found = choose(combinations_of(entries))
    return None if found is None else found.overrides["train.lr"]


def test_the_best_mean_over_the_trials_is_chosen_whatever_the_test_rows_say() -> None:
    entries = [entry(0.1, 0.90, 0.99), entry(0.2, 0.92, 0.10), entry(0.1, 0.93, 0.99), entry(0.2, 0.92, 0.20)]
    assert chosen(*entries) == 0.2  # 0.92 against 0.915
    choice = chosen_combination(combinations_of(entries))
    assert choice is not None and choice.to_json() == {
        "overrides": {"train.lr": 0.2},
        "combinations": 2,
        "validation_accuracy": 0.92,
        "validation_loss": 1.0,
        "test_accuracy": pytest.approx(0.15),
        "test_loss": None,
    }
    assert ChosenCombination.from_json(choice.to_json()) == choice


def test_equal_accuracies_are_told_apart_by_loss_then_by_order() -> None:
    assert chosen(entry(0.1, 0.9, loss=2.0), entry(0.2, 0.9, loss=1.5), entry(0.3, 0.9, loss=1.5)) == 0.2


def test_numbers_are_chosen_by_squared_error() -> None:
    entries = [
        final_trial(
            {"train.lr": lr}, RegressionSummary(9, mse, mse, mse, None), RegressionSummary(9, 0.0, 0.0, 0.0, 0.0)
        )
        for lr, mse in ((0.1, 3.0), (0.2, 2.0))
    ]
    assert chosen(*entries) == 0.2


def test_a_combination_of_which_a_trial_is_not_whole_is_not_chosen() -> None:
    assert chosen(entry(0.1, 0.99), entry(0.1, 0.99, status="diverged"), entry(0.2, 0.5)) == 0.2
    assert chosen(entry(0.1, None), entry(0.2, None)) is None
    assert "set split.validation" in choice_text(chosen_combination(combinations_of([entry(0.1, None)])))


@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_a_run_names_its_choice(tmp_path: Path, validation: float) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    write_dataset(tmp_path / "data", (rng.normal(size=(3, 4))[y] + rng.normal(size=(200, 4))), y, shards=2, classes=3)
    sweep = {"train.lr": [1e-6, 0.1]}
    settings = {
        "data": {"path": str(tmp_path / "data")},
        "run_dir": str(tmp_path / "run"),
        "split": {"seeds": [0, 1], "train": 0.6, "validation": validation},
        "model": {"hidden": []},
        "train": {"epochs": 6},
        "sweep": sweep,
    }
    result = driver.train(Config.model_validate(settings))
    if not validation:
        assert result.chosen is None and result.to_json()["chosen"] is None
        return
    final = json.loads((tmp_path / "run/final/metrics.json").read_bytes())["trials"]
    own = [trial for trial in final if trial["overrides"] == {"train.lr": 0.1}]
    assert result.chosen is not None and result.chosen.overrides == {"train.lr": 0.1}  # the other rate learns nothing
    for part in ("validation", "test"):
        mean = sum(trial[part]["accuracy"] for trial in own) / len(own)
        assert getattr(result.chosen, part)["accuracy"] == pytest.approx(mean)
