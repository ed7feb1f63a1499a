"""Target scaling: a regression learns targets of mean 0 and deviation 1, and answers in the target's own units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError, MismatchError
from nnlib.data.scaling import FeatureStats, Float64Array
from nnlib.data.split.rule import TRAIN, LabelChunks, SplitRule


@dataclass(frozen=True)
class TargetScaler:
    """Scales targets as (y - shift) / spread, in float64: ``shift`` is the mean of the training rows, ``spread`` their
    population standard deviation, 1 where the target is constant."""

    shift: float
    spread: float

    @classmethod
    def from_stats(cls, stats: FeatureStats) -> TargetScaler:
        """Return the scaler fitted to training rows, from statistics of one column. Raises `DataError` if there are no
        rows."""
        if not stats.count:
            raise DataError("no training rows to fit the target scaling to", hint="raise split.train")
        spread = math.sqrt(float(stats.m2[0]) / stats.count)
        usable = stats.high[0] > stats.low[0] and math.isfinite(spread) and spread > float(np.finfo(np.float64).tiny)
        return cls(float(stats.mean[0]), spread if usable else 1.0)

    def scale(self, y: npt.NDArray[Any]) -> Float64Array:
        """Return targets, shape (n,), as the model learns them."""
        scaled: Float64Array = (np.asarray(y, np.float64) - self.shift) / self.spread
        return scaled

    def restore(self, outputs: npt.NDArray[Any]) -> Float64Array:
        """Return a model's outputs, of any shape, in the target's own units, float64."""
        values: Float64Array = outputs.astype(np.float64)
        values *= self.spread
        values += self.shift
        return values

    @property
    def loss_factor(self) -> float:
        """The factor of a squared error that brings it into the target's own units."""
        return self.spread * self.spread

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the scaler as named arrays, to be sent or stored; `from_arrays` is the inverse."""
        return {"target.shift": np.array([self.shift]), "target.spread": np.array([self.spread])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> TargetScaler | None:
        """Return the scaler that `to_arrays` put among ``arrays``, None if there is none. Raises `MismatchError` for
        numbers that scale nothing."""
        if "target.shift" not in arrays:
            return None
        shift, spread = (np.asarray(arrays[f"target.{name}"], np.float64) for name in ("shift", "spread"))
        if not (shift.shape == spread.shape == (1,) and np.isfinite([shift, spread]).all() and spread[0] > 0.0):
            raise MismatchError("the target scaling is not one finite shift and one positive spread")
        return cls(float(shift[0]), float(spread[0]))


def fit_target_scalers(label_chunks: LabelChunks, rules: Sequence[SplitRule]) -> list[TargetScaler]:
    """Fit a scaler to the training rows of each rule, in one pass over the targets in the order of the shards.

    The number of workers does not change a bit of them. Raises `DataError` where a rule leaves no training rows.
    """
    stats = [FeatureStats.zero(1) for _ in rules]
    for chunk in label_chunks():
        for index, rule in enumerate(rules):
            targets = chunk.y[rule.parts(chunk.row, chunk.y, chunk.extra) == TRAIN]
            stats[index] = stats[index].merge(FeatureStats.of(targets[:, None]))
    return [TargetScaler.from_stats(each) for each in stats]
