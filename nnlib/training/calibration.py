"""Counts of rows by the confidence of their prediction, which add up over workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.exact_sum import exact_sum
from nnlib.run.score_summary import CalibrationCounts

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
