"""Feature scaling: statistics of the training rows, which can be merged, and the scaler fitted to them.

Each shard's statistics come from that shard's training rows alone, added in storage order in fixed chunks, and are
merged in the order of the shards: neither the number of workers nor memory can change a bit of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError, MismatchError

Float64Array = npt.NDArray[np.float64]
ScalingKind = Literal["none", "standard", "minmax"]


@dataclass(frozen=True)
class FeatureStats:
    """Statistics of each feature over ``count`` rows, float64, shape (features,) each.

    ``m2``: sum of squared deviations from the mean. ``low`` and ``high``: least and greatest value.
    """

    count: int
    mean: Float64Array
    m2: Float64Array
    low: Float64Array
    high: Float64Array

    @classmethod
    def zero(cls, features: int) -> FeatureStats:
        """Return the statistics of no rows."""
        nothing, infinite = np.zeros(features), np.full(features, np.inf)
        return cls(0, nothing, nothing, infinite, -infinite)

    @classmethod
    def of(cls, x: npt.NDArray[Any]) -> FeatureStats:
        """Return the statistics of rows ``x``, shape (n, features), computed in float64."""
        values = np.asarray(x, np.float64)
        if not len(values):
            return cls.zero(values.shape[1])
        mean = values.sum(axis=0) / len(values)
        deviation = values - mean
        return cls(len(values), mean, np.square(deviation).sum(axis=0), values.min(axis=0), values.max(axis=0))

    def merge(self, other: FeatureStats) -> FeatureStats:
        """Return the statistics of both sets of rows (Chan, Golub, LeVeque 1979, eq. 2.1).

        Raises `MismatchError` for another number of features.
        """
        if self.mean.shape != other.mean.shape:
            raise MismatchError(f"statistics of {self.mean.size} features cannot be merged with {other.mean.size}")
        if not other.count or not self.count:
            return self if self.count else other
        count = self.count + other.count
        difference = other.mean - self.mean
        mean = self.mean + difference * (other.count / count)
        m2 = self.m2 + other.m2 + np.square(difference) * (self.count * other.count / count)
        return FeatureStats(count, mean, m2, np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @staticmethod
    def merged(parts: Iterable[FeatureStats]) -> FeatureStats:
        """Return all ``parts`` merged. They must come in the order of the shards, which decides the bits."""
        return reduce(FeatureStats.merge, parts)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the statistics as named arrays, to be sent or stored; `from_arrays` is the inverse."""
        count = np.array([self.count], np.int64)
        return {"count": count, "mean": self.mean, "m2": self.m2, "low": self.low, "high": self.high}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> FeatureStats:
        """Return the statistics that `to_arrays` made into arrays."""
        floats = [np.asarray(arrays[name], np.float64) for name in ("mean", "m2", "low", "high")]
        return cls(int(arrays["count"][0]), *floats)


@dataclass(frozen=True)
class Scaler:
    """Scales features as (x - shift) * factor, both float64 of shape (features,).

    ``standard``: shift is the mean, factor 1 / population standard deviation. ``minmax``: shift is the least value,
    factor 1 / (greatest - least), so training rows lie in [0, 1]. A feature that is constant in the training rows
    gets factor 1 in both, so it becomes 0 there. A range too small for its inverse to be finite in the type in
    which features are scaled counts as constant.
    """

    kind: ScalingKind
    shift: Float64Array
    factor: Float64Array

    @classmethod
    def from_stats(cls, kind: ScalingKind, stats: FeatureStats, *, is_wide: bool = False) -> Scaler | None:
        """Return the scaler fitted to training rows, None for kind ``none``.

        ``is_wide``: whether features are scaled in float64, not in float32. Raises `DataError` if there are no rows,
        and for values so large that their deviation is not finite.
        """
        if kind == "none":
            return None
        if not stats.count:
            raise DataError("no training rows to fit the feature scaling to", hint="raise split.train")
        spread = np.sqrt(stats.m2 / stats.count) if kind == "standard" else stats.high - stats.low
        if not np.isfinite(spread).all():
            raise DataError(f"feature {int(np.isinf(spread).argmax())} has values too large to be scaled")
        least = 1.0 / float(np.finfo(np.float64 if is_wide else np.float32).max)
        usable = (stats.high > stats.low) & (spread > least)
        factor = np.divide(1.0, spread, out=np.ones_like(spread), where=usable)
        return cls(kind, stats.mean if kind == "standard" else stats.low, factor)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the scaler as named arrays, its kind as bytes of text; `from_arrays` is the inverse."""
        kind = np.frombuffer(self.kind.encode(), np.uint8)
        return {"scaler.kind": kind, "scaler.shift": self.shift, "scaler.factor": self.factor}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Scaler | None:
        """Return the scaler that `to_arrays` put among ``arrays``, None if there is none. Raises `MismatchError` for a
        kind that is unknown."""
        if "scaler.kind" not in arrays:
            return None
        kind = bytes(arrays["scaler.kind"].astype(np.uint8)).decode()
        if kind not in ("standard", "minmax"):
            raise MismatchError(f"unknown feature scaling {kind!r}")
        shift, factor = (np.asarray(arrays[f"scaler.{name}"], np.float64) for name in ("shift", "factor"))
        return cls(cast(ScalingKind, kind), shift, factor)
