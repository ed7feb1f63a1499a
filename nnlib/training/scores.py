"""Scores that add up: every worker scores the held-out rows of its shards, the driver adds what they counted.

Counts are integers; sums of losses are taken over fixed chunks of rows and combined with `math.fsum`, so no number of
reducers can change them. All values travel as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnlib.run.score_summary import ScoreSummary
from nnlib.training.classification_details import DetailedCounts
from nnlib.training.classification_score import CONFUSION_CLASSES, ClassificationScore
from nnlib.training.regression_score import RegressionScore, Spread

__all__ = [
    "CONFUSION_CLASSES",
    "ClassificationScore",
    "RegressionScore",
    "Score",
    "merge_scores",
    "new_score",
    "score_from_json",
]

Score = ClassificationScore | RegressionScore


def new_score(task: str, classes: int, *, detailed: bool = False, rows: int = 0) -> Score:
    """Make an empty score for a dataset's task.

    ``detailed``: also count what detailed metrics need (`nnlib.core.metrics`). ``rows`` are those of all workers
    together, where they are known: of very many a worker then counts its own in bins at once.
    """
    if task != "classification":
        return RegressionScore(errors=Spread() if detailed else None)
    return ClassificationScore(classes, details=DetailedCounts.empty(classes, rows) if detailed else None)


def score_from_json(data: dict[str, Any], task: str, classes: int) -> Score:
    """Read what a score's ``to_json`` wrote."""
    return ClassificationScore.from_json(data, classes) if task == "classification" else RegressionScore.from_json(data)


def merge_scores(parts: Sequence[Score], task: str, classes: int) -> ScoreSummary:
    """Summarise all workers' scores together, in worker order; detailed where all of them are."""
    total = new_score(task, classes, detailed=True)
    for part in parts:
        total.merge(part)  # type: ignore[arg-type]
    return total.summary()
