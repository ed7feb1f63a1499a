"""The metrics of a round, as ``rounds/000007/metrics.json`` keeps them: what every trial scored and trained.

Only what the run's mathematics decides is in them, no times and no hosts: equal runs have equal metrics, byte by byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nnlib.aggregation.drift import DriftSummary
from nnlib.core.errors import MismatchError
from nnlib.core.run_result import MissingWorkers
from nnlib.run.score_summary import ScoreSummary, score_summary_from_json


@dataclass(frozen=True)
class WorkerTraining:
    """One worker's part in the training of a trial: the mean loss of each epoch, and how far it went from the average.

    ``examples`` are the training rows it saw in an epoch.
    """

    worker: int
    examples: int
    losses: tuple[float, ...]
    drift: DriftSummary

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able data."""
        return {
            "worker": self.worker,
            "examples": self.examples,
            "losses": list(self.losses),
            "drift": self.drift.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkerTraining:
        """Read what `to_json` wrote."""
        return cls(data["worker"], data["examples"], tuple(data["losses"]), DriftSummary.from_json(data["drift"]))


@dataclass(frozen=True)
class TrialTraining:
    """The training of a trial in a round: the mean loss of the last epoch over all workers' ``examples``."""

    loss: float
    examples: int
    workers: tuple[WorkerTraining, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able data."""
        return {
            "loss": self.loss,
            "examples": self.examples,
            "workers": [worker.to_json() for worker in self.workers],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialTraining:
        """Read what `to_json` wrote."""
        return cls(data["loss"], data["examples"], tuple(map(WorkerTraining.from_json, data["workers"])))


@dataclass(frozen=True)
class TrialScores:
    """The scores of one model of a trial on the held-out rows of all workers that are not ``missing``."""

    split: int
    test: ScoreSummary
    validation: ScoreSummary
    missing: MissingWorkers | None = None

    def without_details(self) -> TrialScores:
        """Return the scores as such that are not detailed."""
        return replace(self, test=self.test.without_details(), validation=self.validation.without_details())

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON-able data; ``missing`` is left out where no worker was."""
        data = {"split": self.split, "test": self.test.to_json(), "validation": self.validation.to_json()}
        return data if self.missing is None else {**data, "missing": self.missing.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialScores:
        """Read what `to_json` wrote."""
        return cls(
            data["split"],
            score_summary_from_json(data["test"]),
            score_summary_from_json(data["validation"]),
            MissingWorkers.from_json(data.get("missing")),
        )


@dataclass(frozen=True)
class TrialMetrics:
    """A trial in a round: the scores of the model it started from, of round ``scored_round``, and its training.

    ``training`` is None where the trial stopped or diverged; ``status`` is the trial's after the round.
    """

    trial: int
    fold: int
    scored_round: int
    scores: TrialScores
    training: TrialTraining | None
    status: str

    @property
    def workers(self) -> tuple[WorkerTraining, ...]:
        """The workers that trained the trial; () if it was not trained."""
        return () if self.training is None else self.training.workers

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as JSON-able data."""
        return {
            "trial": self.trial,
            "fold": self.fold,
            "scored_round": self.scored_round,
            **self.scores.to_json(),
            "training": None if self.training is None else self.training.to_json(),
            "status": self.status,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialMetrics:
        """Read what `to_json` wrote."""
        training = data["training"]
        return cls(
            trial=data["trial"],
            fold=data["fold"],
            scored_round=data["scored_round"],
            scores=TrialScores.from_json(data),
            training=None if training is None else TrialTraining.from_json(training),
            status=data["status"],
        )


@dataclass(frozen=True)
class RoundMetrics:
    """The metrics of one round. ``epoch`` counts the epochs trained when it ended, ``epochs`` are the global epochs
    (from 0) that it trained: none in round 0, which is what the run starts from."""

    round: int
    epoch: int = 0
    epochs: range = range(0)
    trials: tuple[TrialMetrics, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as JSON-able data."""
        data: dict[str, Any] = {"round": self.round, "epoch": self.epoch}
        if self.epochs:
            data["epochs"] = [self.epochs.start, self.epochs.stop]
            data["trials"] = [trial.to_json() for trial in self.trials]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], file: str) -> RoundMetrics:
        """Read what `to_json` wrote. Raises `MismatchError`, which names ``file``, where it is something else."""
        try:
            return cls(
                round=data["round"],
                epoch=data["epoch"],
                epochs=range(*data.get("epochs", (0, 0))),
                trials=tuple(map(TrialMetrics.from_json, data.get("trials", ()))),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MismatchError(f"lacks or garbles {error}", hint="bring back a copy of it", file=file) from error
