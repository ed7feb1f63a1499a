"""Records of rounds and trials, made by hand."""

from __future__ import annotations

from typing import Any

from nnlib.aggregation.drift import DriftSummary
from nnlib.run.final_result import FinalTrial
from nnlib.run.ledger import RoundFacts, RunIdentity
from nnlib.run.round_metrics import RoundMetrics, TrialMetrics, TrialScores, TrialTraining, WorkerTraining
from nnlib.run.score_summary import ClassificationSummary, RegressionSummary

NO_SCORE = ClassificationSummary(rows=0, loss=None, accuracy=None)


def trial_metrics(*distances: float | None, trial: int = 0, loss: float = 0.5, test: Any = NO_SCORE) -> TrialMetrics:
    """A trial that was trained by workers at these distances from their average; none: it was not trained."""
    workers = tuple(
        WorkerTraining(worker, 10, (2 * loss, loss), DriftSummary(distance, None))
        for worker, distance in enumerate(distances)
    )
    training = TrialTraining(loss, 10 * len(workers), workers) if workers else None
    return TrialMetrics(trial, 0, 0, TrialScores(trial, test, NO_SCORE), training, "active")


def round_metrics(round_: int, *trials: TrialMetrics) -> RoundMetrics:
    """Metrics of a round of two epochs; of round 0 there are none."""
    return RoundMetrics(round_, 2 * round_, range(2 * round_ - 2, 2 * round_), trials) if round_ else RoundMetrics(0)


def round_facts(round_: int) -> RoundFacts:
    """Facts for the ledger's line of a round."""
    return RoundFacts(RunIdentity("config", "dataset", 2), round_, range(round_), (), ())


def final_trial(
    overrides: dict[str, Any],
    validation: ClassificationSummary | RegressionSummary,
    test: ClassificationSummary | RegressionSummary,
    *,
    status: str = "active",
) -> FinalTrial:
    """A trial of a sweep as final scores have it."""
    return FinalTrial(0, 0, 0, overrides, status, None, 1, TrialScores(0, test, validation))
