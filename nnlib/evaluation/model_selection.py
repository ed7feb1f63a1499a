"""Which combination of a sweep is best: by its validation rows, never by its test rows.

Test rows that chose are no test rows any more: the score of the best of many is too high by what luck gave it (Cawley
and Talbot 2010, "On over-fitting in model selection"). So the chosen combination is scored on them apart.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnlib.core.run_result import ChosenCombination, TrialName
from nnlib.run.score_summary import ClassificationSummary

if TYPE_CHECKING:
    from nnlib.run.final_result import FinalTrial  # it needs numpy, and a display need not wait for that


@dataclass(frozen=True)
class Combination:
    """Trials that share their swept keys. ``validation`` has the mean score over them, of accuracy and loss, or of mse
    and loss; None where one of them has none, or diverged."""

    overrides: Mapping[str, Any]
    entries: tuple[FinalTrial, ...]
    validation: dict[str, float] | None

    def mean_test(self, score: str) -> float | None:
        """Average a score on the test rows over the trials that have it; None if none has."""
        values = [entry.test.value(score) for entry in self.entries]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None


def combinations_of(trials: Sequence[FinalTrial]) -> list[Combination]:
    """Group a run's trials by their swept keys, in the order of the sweep."""
    groups: dict[str, list[FinalTrial]] = {}
    for trial in trials:
        groups.setdefault(json.dumps(dict(trial.overrides), sort_keys=True), []).append(trial)
    return [Combination(dict(group[0].overrides), tuple(group), _validation(group)) for group in groups.values()]


def choose(combinations: Sequence[Combination]) -> Combination | None:
    """Choose the combination with the best validation: the highest accuracy for classes, the least squared error for
    numbers; of equals the one with the least loss, then the first. None if no combination has a score."""
    known = [combination for combination in combinations if combination.validation is not None]
    return min(known, key=_rank, default=None)


def chosen_combination(combinations: Sequence[Combination]) -> ChosenCombination | None:
    """Choose the best combination; returns its keys, its validation scores and, apart, its test scores."""
    best = choose(combinations)
    if best is None or best.validation is None:
        return None
    tests = {name: best.mean_test(name) for name in best.validation}
    return ChosenCombination(best.overrides, len(combinations), best.validation, tests)


def choice_text(choice: ChosenCombination | None) -> str:
    """Say a choice in words; the test score it names has chosen nothing."""
    if choice is None:
        return (
            "no combination of the sweep is chosen: none has validation scores of all its trials "
            "(set split.validation; test rows must not choose)"
        )
    score = "accuracy" if "accuracy" in choice.validation else "mse"
    validation, test = (_shown(scores[score], score) for scores in (choice.validation, choice.test))
    return (
        f"chosen by the validation rows: {overrides_text(choice.overrides)} (validation {score} {validation}, "
        f"the best of {choice.combinations} combinations); its test {score} {test}"
    )


def overrides_text(overrides: Mapping[str, Any]) -> str:
    """Say a combination's keys and values in words."""
    return ", ".join(f"{key} {value}" for key, value in overrides.items())


def trial_text(trial: TrialName) -> str:
    """Say in words which trial it is."""
    fold = [] if trial.fold is None else [f"fold {trial.fold}"]
    swept = [overrides_text(trial.overrides)] if trial.overrides else []
    return ", ".join([f"split {trial.split}", *fold, *swept])


def _shown(value: float | None, score: str) -> str:
    return "–" if value is None else f"{100 * value:.2f} %" if score == "accuracy" else f"{value:.4g}"


def _validation(group: Sequence[FinalTrial]) -> dict[str, float] | None:
    name = "accuracy" if isinstance(group[0].validation, ClassificationSummary) else "mse"
    means = {}
    for score in (name, "loss"):
        values = [trial.validation.value(score) for trial in group if trial.status != "diverged"]
        known = [value for value in values if value is not None]
        if len(known) < len(group):
            return None
        means[score] = statistics.fmean(known)
    return means


def _rank(combination: Combination) -> tuple[float, float]:
    validation = combination.validation or {}
    first = -validation["accuracy"] if "accuracy" in validation else validation["mse"]
    return first, validation["loss"]
