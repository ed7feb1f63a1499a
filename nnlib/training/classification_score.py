"""What is counted of a classifier's scored rows, and how counts add up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.exact_sum import exact_sum, finite_or_none
from nnlib.run.score_summary import ClassificationSummary
from nnlib.training.calibration import Calibration
from nnlib.training.classification_details import DetailedCounts

CONFUSION_CLASSES = 200
"""With more classes than this a confusion matrix is not kept: per-class counts and top-k are."""
TOP_K = 5


@dataclass
class ClassificationScore:
    """Counts over scored rows.

    ``counts`` maps true class -> {predicted class: rows} (a sparse confusion matrix), or for more than 200 classes true
    class -> {-1: rows, true class: hits}. ``top_k`` counts rows whose true class is among the k most probable; of equal
    ones the lower class comes first, as it does for argmax. ``calibration`` counts rows by the probability of their
    predicted class. ``details`` has what detailed metrics need; None where they are not wanted.
    """

    classes: int
    rows: int = 0
    correct: int = 0
    top_k: int = 0
    losses: list[float] = field(default_factory=list)
    counts: dict[int, dict[int, int]] = field(default_factory=dict)
    predicted: dict[int, int] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    details: DetailedCounts | None = None

    def add(self, outputs: Array, losses: Array, y: Array, guess: Array | None = None) -> None:
        """Count a fixed chunk of rows: ``outputs`` (b, classes), ``losses`` (b,) float64, ``y`` (b,) class indices.

        ``guess`` (b,): the predicted classes, where they are not the most probable ones.
        """
        guess = np.argmax(outputs, axis=1) if guess is None else guess
        self.rows += len(y)
        self.correct += int(np.count_nonzero(guess == y))
        self.losses.append(exact_sum(losses.tolist()))
        self.calibration.add(np.take_along_axis(outputs, guess[:, None], axis=1)[:, 0], guess == y)
        if self.details is not None:
            self.details.add(outputs, y)
        k = min(TOP_K, self.classes)
        actual = np.take_along_axis(outputs, np.asarray(y, np.intp)[:, None], axis=1)
        ahead = ~(outputs <= actual)  # NaN is ahead of everything: outputs that are not numbers score no hit
        ahead |= (outputs == actual) & (np.arange(outputs.shape[1]) < np.asarray(y)[:, None])
        self.top_k += int(np.count_nonzero(np.count_nonzero(ahead, axis=1) < k))
        if self.classes <= CONFUSION_CLASSES:
            for pair, number in _tally(np.asarray(y, np.int64) * self.classes + guess):
                self._count(pair // self.classes, pair % self.classes, number)
        else:
            for label, number in _tally(y):
                self._count(label, -1, number)
            for label, number in _tally(y[guess == y]):
                self._count(label, label, number)
            for label, number in _tally(guess):
                self.predicted[label] = self.predicted.get(label, 0) + number

    def _count(self, true: int, guess: int, number: int) -> None:
        row = self.counts.setdefault(true, {})
        row[guess] = row.get(guess, 0) + number

    def merge(self, other: ClassificationScore) -> None:
        """Add another worker's counts (call in worker order)."""
        self.rows += other.rows
        self.correct += other.correct
        self.top_k += other.top_k
        self.losses.extend(other.losses)
        for true, row in other.counts.items():
            for guess, number in row.items():
                self._count(true, guess, number)
        for label, number in other.predicted.items():
            self.predicted[label] = self.predicted.get(label, 0) + number
        self.calibration.merge(other.calibration)
        if other.details is None and other.rows:
            self.details = None
        elif other.details is not None and self.details is not None:
            self.details.merge(other.details)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON-able data; the losses as their exact sum."""
        data = {
            "rows": self.rows,
            "correct": self.correct,
            "top_k": self.top_k,
            "losses": [finite_or_none(exact_sum(self.losses))],
            "counts": {str(true): {str(g): n for g, n in sorted(row.items())} for true, row in self.counts.items()},
            "predicted": {str(label): number for label, number in self.predicted.items()},
            "calibration": self.calibration.to_json(),
        }
        return data if self.details is None else {**data, "details": self.details.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any], classes: int) -> ClassificationScore:
        """Read what `to_json` wrote of a dataset with ``classes`` classes."""
        counts = {int(true): {int(g): n for g, n in row.items()} for true, row in data["counts"].items()}
        predicted = {int(label): number for label, number in data["predicted"].items()}
        losses = [math.nan if loss is None else float(loss) for loss in data["losses"]]
        calibration = Calibration.from_json(data["calibration"])
        details = DetailedCounts.from_json(data["details"], classes) if "details" in data else None
        return cls(
            classes, data["rows"], data["correct"], data["top_k"], losses, counts, predicted, calibration, details
        )

    def summary(self) -> ClassificationSummary:
        """Compute what is stored and shown: loss, accuracies, counts, calibration."""
        if not self.rows:
            return ClassificationSummary(rows=0, loss=None, accuracy=None)
        few, indices = self.classes <= CONFUSION_CLASSES, range(self.classes)
        return ClassificationSummary(
            rows=self.rows,
            loss=finite_or_none(exact_sum(self.losses) / self.rows),
            accuracy=self.correct / self.rows,
            top_5_accuracy=self.top_k / self.rows if self.classes > TOP_K else None,
            confusion=self._confusion() if few else None,
            class_rows=None if few else [self.counts.get(label, {}).get(-1, 0) for label in indices],
            class_hits=None if few else [self.counts.get(label, {}).get(label, 0) for label in indices],
            class_predicted=None if few else [self.predicted.get(label, 0) for label in indices],
            calibration=self.calibration.summary(),
            details=None if self.details is None else self.details.summary(self.rows),
        )

    def _confusion(self) -> list[list[int]]:
        matrix = np.zeros((self.classes, self.classes), np.int64)
        for true, row in self.counts.items():
            for guess, number in row.items():
                matrix[true, guess] = number
        table: list[list[int]] = matrix.tolist()
        return table


def _tally(values: Array) -> list[tuple[int, int]]:
    """Each value, ascending, and how often it occurs. (numpy.unique would import numpy.ma: 25 ms of every start.)"""
    counts = np.bincount(values)
    return [(int(value), int(counts[value])) for value in np.flatnonzero(counts)]
