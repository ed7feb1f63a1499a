"""Drift: how far each worker's weights are from the average, in sums over fixed blocks that add up exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnlib.core.arrays import Vector
from nnlib.core.exact_sum import exact_sum
from nnlib.core.layout import blocks


@dataclass(frozen=True)
class Drift:
    """How far a worker is from the average: sums of squares that add up over blocks.

    ``distance``: |w_k - mean|^2; ``step``: |w_k - start|^2; ``mean_step``: |mean - start|^2; ``dot``:
    (w_k - start).(mean - start); ``norm``: |mean|^2.
    """

    distance: float
    step: float
    mean_step: float
    dot: float
    norm: float


def block_drift(weights: Vector, mean: Vector, start: Vector) -> Drift:
    """Compute the drift of one block of at most `nnlib.core.layout.BLOCK` elements, in float64 (pairwise sums)."""
    mean64 = mean.astype(np.float64)
    step = weights.astype(np.float64)
    begin = start.astype(np.float64)
    distance = step - mean64
    step -= begin
    mean_step = mean64 - begin
    return Drift(
        distance=float(np.add.reduce(distance * distance)),
        step=float(np.add.reduce(step * step)),
        mean_step=float(np.add.reduce(mean_step * mean_step)),
        dot=float(np.add.reduce(step * mean_step)),
        norm=float(np.add.reduce(mean64 * mean64)),
    )


def drift_rows(weights: Vector, mean: Vector, start: Vector) -> list[list[float]]:
    """Compute the sums of `Drift` for each block of vectors that begin on the edge of a block."""
    rows = []
    for cut in blocks(mean.size) if mean.size else ():
        drift = block_drift(weights[cut], mean[cut], start[cut])
        rows.append([drift.distance, drift.step, drift.mean_step, drift.dot, drift.norm])
    return rows


@dataclass(frozen=True)
class DriftSummary:
    """A worker's drift over all blocks. None where a number is not defined, or too large for float64 (before a float64
    model diverges, its squares do).

    ``relative``: the distance from the average, relative to the average's norm; ``cosine``: of the angle between the
    worker's step and the average's step.
    """

    relative: float | None
    cosine: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON-able data."""
        return {"relative": self.relative, "cosine": self.cosine}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DriftSummary:
        """Read what `to_json` wrote."""
        return cls(data["relative"], data["cosine"])


def drift_summary(blocks: Sequence[Sequence[float]]) -> DriftSummary:
    """Summarise `drift_rows` of all blocks of a worker, in any order."""
    distance, step, mean_step, dot, norm = (exact_sum(column) for column in zip(*blocks, strict=True))
    relative = math.sqrt(distance / norm) if norm > 0.0 else math.nan
    lengths = math.sqrt(step) * math.sqrt(mean_step)  # the product of the squares could vanish
    cosine = dot / lengths if lengths > 0.0 else math.nan
    return DriftSummary(
        relative=relative if math.isfinite(relative) else None,
        cosine=cosine if math.isfinite(cosine) and math.isfinite(lengths) else None,
    )
