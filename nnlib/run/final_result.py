"""The end of a run, as ``final/metrics.json`` keeps it: which models are kept, and their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nnlib.core.errors import MismatchError
from nnlib.run.round_metrics import TrialScores
from nnlib.run.score_summary import ScoreSummary

REMAKE = "delete final/ and run the same training with --resume: it is made again from the last round"
"""What to do about damaged files of `final/`."""


@dataclass(frozen=True)
class FinalTrial:
    """A trial at the end: the ``scores`` of the model that is kept, which is the one after ``round`` rounds.

    ``folds`` is the run's number of folds (0 without cross-validation); ``overrides`` are the swept keys' values;
    ``reason`` says why a trial stopped or diverged.
    """

    trial: int
    fold: int
    folds: int
    overrides: Mapping[str, Any]
    status: str
    reason: str | None
    round: int
    scores: TrialScores

    @property
    def split(self) -> int:
        """The seed of the trial's split."""
        return self.scores.split

    @property
    def test(self) -> ScoreSummary:
        """The kept model's score on the test rows."""
        return self.scores.test

    @property
    def validation(self) -> ScoreSummary:
        """The kept model's score on the validation rows."""
        return self.scores.validation

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON-able data."""
        return {
            "trial": self.trial,
            "fold": self.fold,
            "folds": self.folds,
            "overrides": dict(self.overrides),
            "status": self.status,
            "reason": self.reason,
            "round": self.round,
            **self.scores.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FinalTrial:
        """Read what `to_json` wrote."""
        return cls(
            trial=data["trial"],
            fold=data["fold"],
            folds=data["folds"],
            overrides=data["overrides"],
            status=data["status"],
            reason=data["reason"],
            round=data["round"],
            scores=TrialScores.from_json(data),
        )


@dataclass(frozen=True)
class FinalResult:
    """All trials at the end of a run of ``rounds`` rounds. ``rounds_planned`` is None where the rounds' lengths are
    chosen on the way; ``model_sha256`` is the digest of all kept models."""

    rounds: int
    rounds_planned: int | None
    task: str
    model_sha256: str
    trials: tuple[FinalTrial, ...]

    @property
    def has_details(self) -> bool:
        """Whether scores are detailed; those of an earlier version are not."""
        return any(each.details is not None for trial in self.trials for each in (trial.test, trial.validation))

    def without_details(self) -> FinalResult:
        """Return the result with scores that are not detailed."""
        trials = tuple(replace(trial, scores=trial.scores.without_details()) for trial in self.trials)
        return replace(self, trials=trials)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-able data."""
        return {
            "rounds": self.rounds,
            "rounds_planned": self.rounds_planned,
            "task": self.task,
            "model_sha256": self.model_sha256,
            "trials": [trial.to_json() for trial in self.trials],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], file: str) -> FinalResult:
        """Read what `to_json` wrote. Raises `MismatchError`, which names ``file``, where it is something else."""
        try:
            return cls(
                rounds=data["rounds"],
                rounds_planned=data["rounds_planned"],
                task=data["task"],
                model_sha256=data["model_sha256"],
                trials=tuple(map(FinalTrial.from_json, data["trials"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MismatchError(
                f"altered or damaged, for it lacks or garbles {error}", hint=REMAKE, file=file
            ) from error
