"""The result of a finished run, as ``nnjobs train --json`` prints it: plain values for programs and people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnlib.core.metrics import METRICS, metrics_of


@dataclass(frozen=True)
class MissingWorkers:
    """Workers that a round went on without (a quorum), and how many test and validation rows they left unscored."""

    workers: tuple[int, ...]
    test_rows: int
    validation_rows: int

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able data."""
        return {
            "workers": list(self.workers),
            "test_rows": self.test_rows,
            "validation_rows": self.validation_rows,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> MissingWorkers | None:
        """Read what `to_json` wrote; None where no worker was missing."""
        return None if data is None else cls(tuple(data["workers"]), data["test_rows"], data["validation_rows"])


@dataclass(frozen=True)
class TrialName:
    """Which trial of a run it is: by the seed of its split, its fold (None without cross-validation) and the swept
    keys' values."""

    split: int
    fold: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the name as JSON-able data; what the run has not is left out."""
        fold = {} if self.fold is None else {"fold": self.fold}
        return {"split": self.split, **fold, **({"overrides": dict(self.overrides)} if self.overrides else {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialName:
        """Read what `to_json` wrote."""
        return cls(data["split"], data.get("fold"), data.get("overrides", {}))


TEST = "test_"
"""What the names of metrics begin with in a result."""
APPROXIMATE = "approximate"


@dataclass(frozen=True)
class TrialResult:
    """A trial's metrics (`nnlib.core.metrics`) on its test rows by name, and the round whose model they are of.

    None: a metric that is not defined. ``approximate`` has the largest errors there can be of metrics that are not
    exact.
    """

    name: TrialName
    scores: Mapping[str, float | None]
    status: str
    round: int
    missing: MissingWorkers | None = None
    approximate: Mapping[str, float] = field(default_factory=dict)

    @property
    def test_accuracy(self) -> float | None:
        """The accuracy; None for regression."""
        return self.scores.get("accuracy")

    @property
    def test_loss(self) -> float | None:
        """The loss."""
        return self.scores.get("loss")

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-able data."""
        data = {**self.name.to_json(), "test_accuracy": self.test_accuracy, "test_loss": self.test_loss}
        data |= {f"{TEST}{name}": value for name, value in self.scores.items()}
        data |= {f"{TEST}{APPROXIMATE}": dict(self.approximate)} if self.approximate else {}
        data |= {} if self.missing is None else {"missing": self.missing.to_json()}
        return data | {"status": self.status, "round": self.round}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialResult:
        """Read what `to_json` wrote."""
        return cls(
            name=TrialName.from_json(data),
            scores=_scores_in(data),
            status=data["status"],
            round=data["round"],
            missing=MissingWorkers.from_json(data.get("missing")),
            approximate=data.get(f"{TEST}{APPROXIMATE}", {}),
        )


@dataclass(frozen=True)
class DivergedTrial:
    """A trial that diverged, by its number and its name, and why."""

    trial: int
    name: TrialName
    reason: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON-able data."""
        return {"trial": self.trial, **self.name.to_json(), "reason": self.reason}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DivergedTrial:
        """Read what `to_json` wrote."""
        return cls(data["trial"], TrialName.from_json(data), data["reason"])


@dataclass(frozen=True)
class ChosenCombination:
    """The best combination of a sweep by its validation rows, of so many ``combinations``.

    ``validation`` and ``test`` have its mean scores by name: accuracy and loss, or mse and loss. Those on the test rows
    have chosen nothing; None where there are none.
    """

    overrides: Mapping[str, Any]
    combinations: int
    validation: Mapping[str, float]
    test: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Return the choice as JSON-able data."""
        return {
            "overrides": dict(self.overrides),
            "combinations": self.combinations,
            **{f"validation_{name}": value for name, value in self.validation.items()},
            **{f"test_{name}": value for name, value in self.test.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> ChosenCombination | None:
        """Read what `to_json` wrote; None where nothing was chosen."""
        if data is None:
            return None
        scores = {
            part: {name.removeprefix(part): value for name, value in data.items() if name.startswith(part)}
            for part in ("validation_", "test_")
        }
        return cls(data["overrides"], data["combinations"], scores["validation_"], scores["test_"])


@dataclass(frozen=True)
class RunResult:
    """A finished run. ``seconds`` is what this command took; ``run_dir`` is where the run lies.

    ``scores`` has the means over the trials of all metrics on the test rows, by name; None where no trial has one.
    ``chosen`` is the choice of a sweep; None without one, or where it has no validation scores.
    """

    scores: Mapping[str, float | None]
    trials: tuple[TrialResult, ...]
    model_sha256: str
    rounds: int
    seconds: float
    run_dir: str
    diverged: tuple[DivergedTrial, ...] = ()
    chosen: ChosenCombination | None = None
    is_regression: bool = False

    @property
    def test_accuracy(self) -> float | None:
        """The mean accuracy; None for regression."""
        return self.scores.get("accuracy")

    @property
    def test_r2(self) -> float | None:
        """The mean R2; None for classes."""
        return self.scores.get("r2")

    @property
    def is_sweep(self) -> bool:
        """Whether the trials differ in swept keys."""
        return any(trial.name.overrides for trial in self.trials)

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        data: dict[str, Any] = {
            "test_accuracy": self.test_accuracy,
            **{f"{TEST}{name}": value for name, value in self.scores.items()},
            "trials": [trial.to_json() for trial in self.trials],
            "model_sha256": self.model_sha256,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "run_dir": self.run_dir,
            "diverged": [trial.to_json() for trial in self.diverged],
        }
        if self.is_sweep:
            data["chosen"] = None if self.chosen is None else self.chosen.to_json()
        if self.is_regression:
            data["test_metric"] = {"name": "r2", "value": self.test_r2}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunResult:
        """Read what `to_json` wrote."""
        return cls(
            scores=_scores_in(data),
            trials=tuple(map(TrialResult.from_json, data["trials"])),
            model_sha256=data["model_sha256"],
            rounds=data["rounds"],
            seconds=data["seconds"],
            run_dir=data["run_dir"],
            diverged=tuple(map(DivergedTrial.from_json, data["diverged"])),
            chosen=ChosenCombination.from_json(data.get("chosen")),
            is_regression="test_metric" in data,
        )


def _scores_in(data: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of a result by name. Regressions have a null accuracy, which is none of theirs."""
    names = metrics_of("regression") if f"{TEST}r2" in data else tuple(METRICS)
    return {name: data[f"{TEST}{name}"] for name in names if f"{TEST}{name}" in data}
