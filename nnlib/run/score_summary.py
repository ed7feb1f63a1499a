"""What is stored and shown of a score: a model's numbers on one part of the rows, test or validation.

Metrics that follow from what is stored (`nnlib.core.metrics`) are computed when they are asked for. A detailed score
stores more: where it is missing, detailed metrics are None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from nnlib.core.metrics import METRICS, ClassCounts, metrics_of


@dataclass(frozen=True)
class CalibrationCounts:
    """Rows, hits and the sum of confidences in each bin of confidence (`nnlib.training.calibration`)."""

    rows: Sequence[int]
    hits: Sequence[int]
    confidence: Sequence[float]

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON-able data."""
        return {"rows": list(self.rows), "hits": list(self.hits), "confidence": list(self.confidence)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CalibrationCounts:
        """Read what `to_json` wrote."""
        return cls(data["rows"], data["hits"], data["confidence"])


@dataclass(frozen=True)
class ClassificationDetails:
    """What a detailed score of a classifier has besides: ``log_loss``, and by class ``roc_auc`` and
    ``average_precision``, one class against the rest.

    With two classes the lists have one value, that of the second class. A value is None where the rows have no row of
    the class, or no other; the lists are None with very many classes, or where an output is not finite. ``error`` has
    by metric (mean over classes) the largest error there can be, where very many rows were counted in bins.
    """

    log_loss: float | None
    roc_auc: Sequence[float | None] | None
    average_precision: Sequence[float | None] | None
    error: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the details as JSON-able data; ``error`` is left out where all is exact."""
        data: dict[str, Any] = {
            "log_loss": self.log_loss,
            "roc_auc": None if self.roc_auc is None else list(self.roc_auc),
            "average_precision": None if self.average_precision is None else list(self.average_precision),
        }
        return {**data, "error": dict(self.error)} if self.error else data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClassificationDetails:
        """Read what `to_json` wrote."""
        return cls(data["log_loss"], data["roc_auc"], data["average_precision"], data.get("error", {}))


@dataclass(frozen=True)
class ClassificationSummary:
    """A classifier's score over ``rows`` rows; without a row, ``loss`` and ``accuracy`` are None, all else is absent.

    ``loss`` is also None where it is not finite. ``top_5_accuracy`` is None with five classes or fewer. ``confusion``
    has the rows by true class (down) and predicted class (across); with very many classes ``class_rows``,
    ``class_hits`` and ``class_predicted`` have their sums instead. ``details`` is None where the score was
    not detailed.
    """

    rows: int
    loss: float | None
    accuracy: float | None
    top_5_accuracy: float | None = None
    confusion: Sequence[Sequence[int]] | None = None
    class_rows: Sequence[int] | None = None
    class_hits: Sequence[int] | None = None
    class_predicted: Sequence[int] | None = None
    calibration: CalibrationCounts | None = None
    details: ClassificationDetails | None = None

    @cached_property
    def class_counts(self) -> ClassCounts | None:
        """The rows, the hits and the predictions of every class, from a matrix or from its sums; None where there is
        neither."""
        if self.confusion is not None:
            rows = [sum(line) for line in self.confusion]
            hits = [line[index] for index, line in enumerate(self.confusion)]
            return ClassCounts(rows, hits, [sum(column) for column in zip(*self.confusion, strict=True)])
        if self.class_rows is None or self.class_hits is None or self.class_predicted is None:
            return None
        return ClassCounts(self.class_rows, self.class_hits, self.class_predicted)

    @property
    def log_loss(self) -> float | None:
        """See `ClassificationDetails`; None without details."""
        return None if self.details is None else self.details.log_loss

    @property
    def roc_auc(self) -> Sequence[float | None] | None:
        """See `ClassificationDetails`; None without details."""
        return None if self.details is None else self.details.roc_auc

    @property
    def average_precision(self) -> Sequence[float | None] | None:
        """See `ClassificationDetails`; None without details."""
        return None if self.details is None else self.details.average_precision

    @property
    def error(self) -> Mapping[str, float]:
        """The largest error there can be of the metrics that are not exact, by name."""
        return {} if self.details is None else self.details.error

    def value(self, name: str) -> float | None:
        """Return the metric called ``name``; None where there is no such metric, or it is not defined."""
        return METRICS[name].compute(self) if name in metrics_of("classification") else None

    def values(self) -> dict[str, float | None]:
        """Return the metrics by name: None where one is not defined, and no name where it was not computed."""
        names = _computed("classification", self.details is not None)
        return {name: self.value(name) for name in names if name != "top_5_accuracy" or self.top_5_accuracy is not None}

    def without_details(self) -> ClassificationSummary:
        """Return the score as one that was not detailed."""
        return replace(self, details=None)

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON-able data."""
        data: dict[str, Any] = {"rows": self.rows, "loss": self.loss, "accuracy": self.accuracy}
        for name in ("top_5_accuracy", "confusion", "class_rows", "class_hits", "class_predicted"):
            if (value := getattr(self, name)) is not None:
                data[name] = value
        if self.calibration is not None:
            data["calibration"] = self.calibration.to_json()
        return data if self.details is None else {**data, "details": self.details.to_json()}


@dataclass(frozen=True)
class RegressionDetails:
    """What a detailed score of a regression has besides. ``explained_variance`` is None where the targets do not vary,
    or a number is not finite."""

    explained_variance: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the details as JSON-able data."""
        return {"explained_variance": self.explained_variance}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RegressionDetails:
        """Read what `to_json` wrote."""
        return cls(data["explained_variance"])


@dataclass(frozen=True)
class RegressionSummary:
    """A regression's score over ``rows`` rows; a number is None without a row or where it is not finite, and ``r2``
    also where the targets do not vary. ``details`` is None where the score was not detailed."""

    rows: int
    loss: float | None
    mse: float | None
    mae: float | None
    r2: float | None
    details: RegressionDetails | None = None

    @property
    def explained_variance(self) -> float | None:
        """See `RegressionDetails`; None without details."""
        return None if self.details is None else self.details.explained_variance

    @property
    def error(self) -> Mapping[str, float]:
        """The largest error there can be of the metrics that are not exact, by name: all are exact."""
        return {}

    def value(self, name: str) -> float | None:
        """Return the metric called ``name``; None where there is no such metric, or it is not defined."""
        return METRICS[name].compute(self) if name in metrics_of("regression") else None

    def values(self) -> dict[str, float | None]:
        """Return the metrics by name: None where one is not defined, and no name where it was not computed."""
        return {name: self.value(name) for name in _computed("regression", self.details is not None)}

    def without_details(self) -> RegressionSummary:
        """Return the score as one that was not detailed."""
        return replace(self, details=None)

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON-able data."""
        data = {"rows": self.rows, "loss": self.loss, "mse": self.mse, "mae": self.mae, "r2": self.r2}
        return data if self.details is None else {**data, "details": self.details.to_json()}


def _computed(task: str, detailed: bool) -> list[str]:
    return [name for name in metrics_of(task) if detailed or not METRICS[name].detailed]


ScoreSummary = ClassificationSummary | RegressionSummary


def score_summary_from_json(data: Mapping[str, Any]) -> ScoreSummary:
    """Read what a summary's ``to_json`` wrote; only a classifier's has an accuracy."""
    details = data.get("details")
    if "accuracy" not in data:
        return RegressionSummary(
            rows=data["rows"],
            loss=data["loss"],
            mse=data["mse"],
            mae=data["mae"],
            r2=data["r2"],
            details=None if details is None else RegressionDetails.from_json(details),
        )
    calibration = data.get("calibration")
    return ClassificationSummary(
        rows=data["rows"],
        loss=data["loss"],
        accuracy=data["accuracy"],
        top_5_accuracy=data.get("top_5_accuracy"),
        confusion=data.get("confusion"),
        class_rows=data.get("class_rows"),
        class_hits=data.get("class_hits"),
        class_predicted=data.get("class_predicted"),
        calibration=None if calibration is None else CalibrationCounts.from_json(calibration),
        details=None if details is None else ClassificationDetails.from_json(details),
    )
