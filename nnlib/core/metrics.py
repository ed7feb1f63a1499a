"""The table of metrics: what each is called, which way is better, and how it follows from what was counted.

A metric is one line of `METRICS`. Commands, `metrics.jsonl`, reports, model cards and ``train.stop.metric`` read the
table. Most metrics follow from counts and sums that every score has. A ``detailed`` one needs more than that (the
probabilities of all rows, say), so it is computed for final models and predictions, and in rounds only where
``train.stop.metric`` names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class ClassCounts(NamedTuple):
    """By class: its rows, the rows of it that were predicted right, the rows that were predicted to be of it."""

    rows: Sequence[int]
    hits: Sequence[int]
    predicted: Sequence[int]


class ClassificationFacts(Protocol):
    """What metrics of a classifier are computed from. None: not counted, or not defined."""

    @property
    def loss(self) -> float | None:
        """The mean loss that training minimizes, without the L2 term."""
        ...

    @property
    def accuracy(self) -> float | None:
        """The share of rows whose class was predicted."""
        ...

    @property
    def top_5_accuracy(self) -> float | None:
        """The share of rows whose class was among the five most probable."""
        ...

    @property
    def class_counts(self) -> ClassCounts | None:
        """The counts by class."""
        ...

    @property
    def log_loss(self) -> float | None:
        """The mean of -log of the probability of the true class."""
        ...

    @property
    def roc_auc(self) -> Sequence[float | None] | None:
        """The area under the ROC curve: of the second class where there are two, else of each class."""
        ...

    @property
    def average_precision(self) -> Sequence[float | None] | None:
        """The average precision, of the same classes as `roc_auc`."""
        ...


class RegressionFacts(Protocol):
    """What metrics of a regression are computed from. None: not computed, or not defined."""

    @property
    def loss(self) -> float | None:
        """The mean loss that training minimizes, without the L2 term."""
        ...

    @property
    def mse(self) -> float | None:
        """The mean squared error."""
        ...

    @property
    def mae(self) -> float | None:
        """The mean absolute error."""
        ...

    @property
    def r2(self) -> float | None:
        """The coefficient of determination."""
        ...

    @property
    def explained_variance(self) -> float | None:
        """1 - variance of the errors / variance of the targets."""
        ...


@dataclass(frozen=True)
class Metric:
    """One metric. ``title`` is for people; ``compute`` takes `ClassificationFacts` or `RegressionFacts`.

    ``is_share``: people read it in percent. ``detailed``: it needs a detailed score, see the module.
    """

    task: str
    title: str
    compute: Callable[[Any], float | None]
    greater_is_better: bool = True
    is_share: bool = False
    detailed: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value that there can be: losses are at least 0, all else is at most 1, and of
        classes at least 0."""
        if not self.greater_is_better:
            return 0.0, math.inf
        return (0.0 if self.task == _CLASSES else -math.inf), 1.0

    def is_better(self, value: float, other: float, by: float = 0.0) -> bool:
        """Whether ``value`` is better than ``other`` by more than ``by``."""
        return value > other + by if self.greater_is_better else value < other - by


def _balanced_accuracy(facts: ClassificationFacts) -> float | None:
    """The mean recall of the classes that have rows."""
    counts = facts.class_counts
    if counts is None:
        return None
    recalls = [hits / rows for rows, hits in zip(counts.rows, counts.hits, strict=True) if rows]
    return math.fsum(recalls) / len(recalls) if recalls else None


def _f1_scores(counts: ClassCounts) -> list[tuple[float, int]]:
    """(F1, rows) of every class that has rows or was predicted; F1 is 0 where no row was predicted right."""
    return [
        (2 * hits / (rows + predicted), rows)
        for rows, hits, predicted in zip(counts.rows, counts.hits, counts.predicted, strict=True)
        if rows + predicted
    ]


def _f1_macro(facts: ClassificationFacts) -> float | None:
    """The mean F1 of the classes that have rows or were predicted."""
    scores = [] if facts.class_counts is None else _f1_scores(facts.class_counts)
    return math.fsum(f1 for f1, _ in scores) / len(scores) if scores else None


def _f1_weighted(facts: ClassificationFacts) -> float | None:
    """The mean F1 of the classes, weighted by their rows."""
    scores = [] if facts.class_counts is None else _f1_scores(facts.class_counts)
    total = sum(rows for _, rows in scores)
    return math.fsum(f1 * rows for f1, rows in scores) / total if total else None


def _mean_of_all(values: Sequence[float | None] | None) -> float | None:
    """The mean over the classes; None where one of them has no value: a class is absent from the rows."""
    known = [value for value in values or () if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values or ()) else None


def _rmse(facts: RegressionFacts) -> float | None:
    return None if facts.mse is None else math.sqrt(facts.mse)


_CLASSES, _NUMBERS = "classification", "regression"

METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(_CLASSES, "accuracy", lambda facts: facts.accuracy, is_share=True),
    "top_5_accuracy": Metric(_CLASSES, "top-5 accuracy", lambda facts: facts.top_5_accuracy, is_share=True),
    "balanced_accuracy": Metric(_CLASSES, "balanced accuracy", _balanced_accuracy, is_share=True),
    "f1_macro": Metric(_CLASSES, "macro F1", _f1_macro),
    "f1_weighted": Metric(_CLASSES, "weighted F1", _f1_weighted),
    "roc_auc": Metric(_CLASSES, "ROC AUC", lambda facts: _mean_of_all(facts.roc_auc), detailed=True),
    "average_precision": Metric(
        _CLASSES, "average precision", lambda facts: _mean_of_all(facts.average_precision), detailed=True
    ),
    "log_loss": Metric(_CLASSES, "log loss", lambda facts: facts.log_loss, greater_is_better=False, detailed=True),
    "r2": Metric(_NUMBERS, "R²", lambda facts: facts.r2),
    "explained_variance": Metric(_NUMBERS, "explained variance", lambda facts: facts.explained_variance, detailed=True),
    "mse": Metric(_NUMBERS, "mean squared error", lambda facts: facts.mse, greater_is_better=False),
    "rmse": Metric(_NUMBERS, "root mean squared error", _rmse, greater_is_better=False),
    "mae": Metric(_NUMBERS, "mean absolute error", lambda facts: facts.mae, greater_is_better=False),
    "loss": Metric("any", "loss", lambda facts: facts.loss, greater_is_better=False),
}
"""Name -> metric, the one that is compared first."""


def metrics_of(task: str) -> tuple[str, ...]:
    """Return the names of a task's metrics, the main one first."""
    return tuple(name for name, metric in METRICS.items() if metric.task in (task, "any"))


def cut_interval(name: str, interval: Sequence[float]) -> tuple[float, float]:
    """Return an interval of a metric without the values that there cannot be: t-intervals know no bounds."""
    (low, high), (least, greatest) = interval, METRICS[name].bounds
    return max(low, least), min(high, greatest)


def is_share(name: str) -> bool:
    """Whether people read a metric in percent."""
    return name in METRICS and METRICS[name].is_share
