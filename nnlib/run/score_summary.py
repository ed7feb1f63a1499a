"""What is stored and shown of a score: a model's numbers on one part of the rows, test or validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CalibrationCounts:
    """Rows, hits and the sum of confidences in each bin of confidence (`nnlib.training.scores.Calibration`)."""

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
class ClassificationSummary:
    """A classifier's score over ``rows`` rows; without a row, ``loss`` and ``accuracy`` are None, all else is absent.

    ``loss`` is also None where it is not finite. ``top_5_accuracy`` is None with five classes or fewer. ``confusion``
    has the rows by true class (down) and predicted class (across); with very many classes ``class_rows``,
    ``class_hits`` and ``class_predicted`` have their sums instead.
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

    def value(self, name: str) -> float | None:
        """Return the score called ``name``; None where there is no such score, or it is not defined."""
        return getattr(self, name) if name in ("loss", "accuracy", "top_5_accuracy") else None

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON-able data."""
        data: dict[str, Any] = {"rows": self.rows, "loss": self.loss, "accuracy": self.accuracy}
        for name in ("top_5_accuracy", "confusion", "class_rows", "class_hits", "class_predicted"):
            if (value := getattr(self, name)) is not None:
                data[name] = value
        return data if self.calibration is None else {**data, "calibration": self.calibration.to_json()}


@dataclass(frozen=True)
class RegressionSummary:
    """A regression's score over ``rows`` rows; a number is None without a row or where it is not finite, and ``r2``
    also where the targets do not vary."""

    rows: int
    loss: float | None
    mse: float | None
    mae: float | None
    r2: float | None

    def value(self, name: str) -> float | None:
        """Return the score called ``name``; None where there is no such score, or it is not defined."""
        return getattr(self, name) if name in ("loss", "mse", "mae", "r2") else None

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON-able data."""
        return {"rows": self.rows, "loss": self.loss, "mse": self.mse, "mae": self.mae, "r2": self.r2}


ScoreSummary = ClassificationSummary | RegressionSummary


def score_summary_from_json(data: Mapping[str, Any]) -> ScoreSummary:
    """Read what a summary's ``to_json`` wrote; only a classifier's has an accuracy."""
    if "accuracy" not in data:
        return RegressionSummary(data["rows"], data["loss"], data["mse"], data["mae"], data["r2"])
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
    )
