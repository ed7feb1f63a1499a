"""The average of partials of which each holds a part of the vector only, as those of sub-nets do.

Every element is the mean over the workers that hold it, weighted as in `nnlib.aggregation.average`: the float64 sum in
worker order, divided by the sum of these workers' weights, rounded once. What one worker alone holds comes back
unchanged; what none holds stays what it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnlib.aggregation.average import Average, Partial, Weighting
from nnlib.core.arrays import BoolArray, FloatArray, Vector
from nnlib.core.entries import Segment


class MaskedAverage(Average):
    """The combination of partials that hold parts of a vector, or of one slice of it."""

    def __init__(
        self,
        workers: Sequence[int],
        fingerprint: str,
        weighting: Weighting = "examples",
        segment: Segment | None = None,
        offset: int = 0,
        *,
        start: Vector,
        held: Mapping[int, BoolArray],
    ) -> None:
        """``start``, shape (n,): the values of elements that no worker holds. ``held``: by worker, which elements it
        holds, shape (n,). The other arguments are those of `Average`. Raises `ValueError` for a segment whose rule is
        not the mean."""
        super().__init__(workers, fingerprint, weighting, segment, offset)
        if self.rule != "mean":
            raise ValueError(f"values of sub-nets have a mean, no {self.rule}")
        self._start, self._held = start, held
        self._weights: FloatArray = np.zeros(start.shape, np.float64)
        self._holders = np.zeros(start.shape, np.int64)
        self._last = start.copy()

    def merge(self, other: Average) -> Average:
        """See `Average.merge`: averages of parts are not merged. Raises `TypeError`."""
        raise TypeError("averages of parts of a vector are not merged")

    def finish(self) -> Vector:
        """See `Average.finish`."""
        super().finish()  # refuses to go on without all partials
        total = np.asarray(self._total)
        mean = np.divide(total, self._weights, out=np.zeros_like(self._weights), where=self._holders > 1)
        return np.where(self._holders > 1, mean.astype(self._start.dtype), self._last)

    def _combined(self, partial: Partial, weight: int) -> Vector:
        held = self._held[partial.worker]
        scaled = np.where(held, partial.weights, 0).astype(np.float64)
        scaled *= weight
        self._weights += weight * held
        self._holders += held
        self._last = np.where(held, partial.weights, self._last)
        return scaled if self._total is None else self._total + scaled
