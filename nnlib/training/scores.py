"""Scores that add up: every worker scores the held-out rows of its shards, the driver adds what they counted.

Counts are integers; sums of losses are taken over fixed chunks of rows and combined with `math.fsum`, so no number of
reducers can change them. All values travel as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.exact_sum import exact_sum
from nnlib.run.score_summary import CalibrationCounts, ClassificationSummary, RegressionSummary, ScoreSummary

CONFUSION_CLASSES = 200
"""With more classes than this a confusion matrix is not kept: per-class counts and top-k are."""
TOP_K = 5
CALIBRATION_BINS = 15
"""Bins of equal width over confidences 0..1: ((k)/15, (k+1)/15], as in Guo et al. 2017."""


@dataclass
class Calibration:
    """Per bin of confidence (the probability of the predicted class): rows, hits and the sum of confidences.

    ``confidence`` holds a list of partial sums a bin, joined by `exact_sum`. Rows without a finite confidence are left
    out.
    """

    rows: list[int] = field(default_factory=lambda: [0] * CALIBRATION_BINS)
    hits: list[int] = field(default_factory=lambda: [0] * CALIBRATION_BINS)
    confidence: list[list[float]] = field(default_factory=lambda: [[] for _ in range(CALIBRATION_BINS)])

    def add(self, confidence: Array, hit: Array) -> None:
        """Count one fixed chunk of rows: ``confidence`` (b,), ``hit`` (b,) bool."""
        known = np.isfinite(confidence)
        value, right = confidence[known].astype(np.float64), hit[known]
        bins = np.clip(np.ceil(value * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
        self._add(
            np.bincount(bins, minlength=CALIBRATION_BINS).tolist(),
            np.bincount(bins[right], minlength=CALIBRATION_BINS).tolist(),
            [[total] for total in np.bincount(bins, value, CALIBRATION_BINS).tolist()],
        )

    def merge(self, other: Calibration) -> None:
        """Add another worker's counts (call in worker order)."""
        self._add(other.rows, other.hits, other.confidence)

    def _add(self, rows: list[int], hits: list[int], confidence: list[list[float]]) -> None:
        for index in range(CALIBRATION_BINS):
            self.rows[index] += rows[index]
            self.hits[index] += hits[index]
            if rows[index]:
                self.confidence[index].extend(confidence[index])

    def summary(self) -> CalibrationCounts:
        """Compute what is stored and shown: one sum of confidences a bin."""
        return CalibrationCounts(self.rows, self.hits, [exact_sum(sums) for sums in self.confidence])

    def to_json(self) -> dict[str, Any]:
        """Return the counts and one sum of confidences a bin, as JSON-able data."""
        return self.summary().to_json()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        """Read what `to_json` wrote."""
        sums = [[total] if rows else [] for rows, total in zip(data["rows"], data["confidence"], strict=True)]
        return cls(list(data["rows"]), list(data["hits"]), sums)


@dataclass
class ClassificationScore:
    """Counts over scored rows.

    ``counts`` maps true class -> {predicted class: rows} (a sparse confusion matrix), or for more than 200 classes true
    class -> {-1: rows, true class: hits}. ``top_k`` counts rows whose true class is among the k most probable; of equal
    ones the lower class comes first, as it does for argmax. ``calibration`` counts rows by the probability of their
    predicted class.
    """

    classes: int
    rows: int = 0
    correct: int = 0
    top_k: int = 0
    losses: list[float] = field(default_factory=list)
    counts: dict[int, dict[int, int]] = field(default_factory=dict)
    predicted: dict[int, int] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)

    def add(self, outputs: Array, losses: Array, y: Array, guess: Array | None = None) -> None:
        """Count a fixed chunk of rows: ``outputs`` (b, classes), ``losses`` (b,) float64, ``y`` (b,) class indices.

        ``guess`` (b,): the predicted classes, where they are not the most probable ones.
        """
        guess = np.argmax(outputs, axis=1) if guess is None else guess
        self.rows += len(y)
        self.correct += int(np.count_nonzero(guess == y))
        self.losses.append(exact_sum(losses.tolist()))
        self.calibration.add(np.take_along_axis(outputs, guess[:, None], axis=1)[:, 0], guess == y)
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

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON-able data; the losses as their exact sum."""
        return {
            "rows": self.rows,
            "correct": self.correct,
            "top_k": self.top_k,
            "losses": [_number(exact_sum(self.losses))],
            "counts": {str(true): {str(g): n for g, n in sorted(row.items())} for true, row in self.counts.items()},
            "predicted": {str(label): number for label, number in self.predicted.items()},
            "calibration": self.calibration.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], classes: int) -> ClassificationScore:
        """Read what `to_json` wrote of a dataset with ``classes`` classes."""
        counts = {int(true): {int(g): n for g, n in row.items()} for true, row in data["counts"].items()}
        predicted = {int(label): number for label, number in data["predicted"].items()}
        losses = [math.nan if loss is None else float(loss) for loss in data["losses"]]
        calibration = Calibration.from_json(data["calibration"])
        return cls(classes, data["rows"], data["correct"], data["top_k"], losses, counts, predicted, calibration)

    def summary(self) -> ClassificationSummary:
        """Compute what is stored and shown: loss, accuracies, counts, calibration."""
        if not self.rows:
            return ClassificationSummary(rows=0, loss=None, accuracy=None)
        few, indices = self.classes <= CONFUSION_CLASSES, range(self.classes)
        return ClassificationSummary(
            rows=self.rows,
            loss=_number(exact_sum(self.losses) / self.rows),
            accuracy=self.correct / self.rows,
            top_5_accuracy=self.top_k / self.rows if self.classes > TOP_K else None,
            confusion=self._confusion() if few else None,
            class_rows=None if few else [self.counts.get(label, {}).get(-1, 0) for label in indices],
            class_hits=None if few else [self.counts.get(label, {}).get(label, 0) for label in indices],
            class_predicted=None if few else [self.predicted.get(label, 0) for label in indices],
            calibration=self.calibration.summary(),
        )

    def _confusion(self) -> list[list[int]]:
        matrix = np.zeros((self.classes, self.classes), np.int64)
        for true, row in self.counts.items():
            for guess, number in row.items():
                matrix[true, guess] = number
        table: list[list[int]] = matrix.tolist()
        return table


@dataclass
class RegressionScore:
    """Sums over scored rows; the spread of the targets by Chan's merge, for R2."""

    rows: int = 0
    losses: list[float] = field(default_factory=list)
    squared: list[float] = field(default_factory=list)
    absolute: list[float] = field(default_factory=list)
    mean: float = 0.0
    spread: float = 0.0

    def add(self, outputs: Array, losses: Array, y: Array) -> None:
        """Add one fixed chunk of rows: ``outputs`` (b, 1), ``losses`` (b,) float64, ``y`` (b,)."""
        target = np.asarray(y, np.float64)
        error = outputs[:, 0].astype(np.float64) - target
        mean = exact_sum(target.tolist()) / len(target)
        chunk = RegressionScore(
            len(target),
            [exact_sum(losses.tolist())],
            [exact_sum((error * error).tolist())],
            [exact_sum(np.abs(error).tolist())],
            mean,
            exact_sum(((target - mean) ** 2).tolist()),
        )
        self.merge(chunk)

    def merge(self, other: RegressionScore) -> None:
        """Add another worker's sums (call in worker order)."""
        if not other.rows:
            return
        total = self.rows + other.rows
        apart = other.mean - self.mean
        self.spread += other.spread + apart * apart * self.rows * other.rows / total
        self.mean += apart * other.rows / total
        self.rows = total
        self.losses.extend(other.losses)
        self.squared.extend(other.squared)
        self.absolute.extend(other.absolute)

    def to_json(self) -> dict[str, Any]:
        """Return the sums as JSON-able data, each as one exact sum."""
        return {
            "rows": self.rows,
            "losses": [_number(exact_sum(self.losses))],
            "squared": [_number(exact_sum(self.squared))],
            "absolute": [_number(exact_sum(self.absolute))],
            "mean": self.mean,
            "spread": self.spread,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RegressionScore:
        """Read what `to_json` wrote."""
        losses, squared, absolute = (
            [math.nan if value is None else float(value) for value in data[key]]
            for key in ("losses", "squared", "absolute")
        )
        return cls(data["rows"], losses, squared, absolute, data["mean"], data["spread"])

    def summary(self) -> RegressionSummary:
        """Compute MSE, MAE and R2."""
        if not self.rows:
            return RegressionSummary(rows=0, loss=None, mse=None, mae=None, r2=None)
        squared = exact_sum(self.squared)
        return RegressionSummary(
            rows=self.rows,
            loss=_number(exact_sum(self.losses) / self.rows),
            mse=_number(squared / self.rows),
            mae=_number(exact_sum(self.absolute) / self.rows),
            r2=_number(1.0 - squared / self.spread) if self.spread > 0.0 else None,
        )


Score = ClassificationScore | RegressionScore


def new_score(task: str, classes: int) -> Score:
    """Make an empty score for a dataset's task."""
    return ClassificationScore(classes) if task == "classification" else RegressionScore()


def score_from_json(data: dict[str, Any], task: str, classes: int) -> Score:
    """Read what a score's ``to_json`` wrote."""
    return ClassificationScore.from_json(data, classes) if task == "classification" else RegressionScore.from_json(data)


def merge_scores(parts: Sequence[Score], task: str, classes: int) -> ScoreSummary:
    """Summarise all workers' scores together, in worker order."""
    total = new_score(task, classes)
    for part in parts:
        total.merge(part)  # type: ignore[arg-type]
    return total.summary()


def _tally(values: Array) -> list[tuple[int, int]]:
    """Each value, ascending, and how often it occurs. (numpy.unique would import numpy.ma: 25 ms of every start.)"""
    counts = np.bincount(values)
    return [(int(value), int(counts[value])) for value in np.flatnonzero(counts)]


def _number(value: float) -> float | None:
    """JSON has no NaN: a loss that is not finite is null."""
    return value if math.isfinite(value) else None
