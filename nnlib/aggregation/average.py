"""The averaging: partials in, one model out.

A partial is never a bare vector: it says whose it is, how many examples stand behind it and which layout it has. The
average is the float64 sum, in worker order, of weight_k * w_k, divided by the sum of the weights and rounded once to
the model's dtype ("Distributed Neural Networks: A Parallel Approach", section 4: model averaging by all-reduce;
weighted by examples as in McMahan et al. 2017, FedAvg). An `Average` is mergeable: whatever the order of arrival and
merging, the sum is taken in worker order, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Vector
from nnlib.core.errors import DivergedError, MismatchError

Weighting = Literal["examples", "equal"]

MOST_EXAMPLES = 2**53
"""Up to here every whole number is a float64, so no weight of an average is rounded."""


@dataclass(frozen=True)
class Partial:
    """What one worker gives for a vector, or for one slice of it.

    ``weights`` has shape (n,) in the model's dtype; ``examples`` is the number of rows it was trained on, at least 1;
    ``fingerprint`` is the layout's.
    """

    worker: int
    examples: int
    weights: Vector
    fingerprint: str

    def check(self) -> None:
        """Refuse what must never enter an average."""
        if not 0 < self.examples <= MOST_EXAMPLES:
            raise MismatchError(f"a partial needs 1 to 2**53 examples, got {self.examples}", worker=self.worker)
        if self.weights.ndim != 1 or self.weights.dtype not in (np.float32, np.float64):
            raise MismatchError(
                f"expected a vector of float32 or float64, got shape {self.weights.shape} {self.weights.dtype}",
                worker=self.worker,
            )
        finite = np.isfinite(self.weights)
        if not finite.all():
            index = int(np.argmin(finite))
            raise DivergedError(f"weight {index} is {self.weights[index]}", worker=self.worker)


class Average:
    """The mean of the partials of ``workers``, whatever order they come in.

    The sum runs over the workers in ascending order; a partial that comes before its turn waits. Memory is one float64
    vector and the waiting partials: O(n) where values arrive sorted, as a reducer's do.
    """

    def __init__(self, workers: Sequence[int], fingerprint: str, weighting: Weighting = "examples") -> None:
        self.workers = sorted(workers)
        if not self.workers or len(set(self.workers)) != len(self.workers):
            raise ValueError(f"workers must be distinct and at least one, got {list(workers)}")
        self.fingerprint = fingerprint
        self.weighting = weighting
        self._places = {worker: place for place, worker in enumerate(self.workers)}
        self._sum: npt.NDArray[np.float64] | None = None
        self._single: Vector | None = None
        self._summed = 0
        self._waiting: dict[int, Partial] = {}
        self._weight = 0
        self._shape: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        self.examples = 0

    def add(self, partial: Partial) -> None:
        """Take one worker's partial. Refuses another layout, a stranger, a twin, zero weight, non-finite values."""
        partial.check()
        if partial.fingerprint != self.fingerprint:
            raise MismatchError(
                f"layout {partial.fingerprint} does not match {self.fingerprint}: another model's weights",
                worker=partial.worker,
            )
        if partial.worker not in self._places:
            raise MismatchError("a partial from a worker that is not in the plan", worker=partial.worker)
        if self._holds(partial.worker):
            raise MismatchError("two partials from the same worker", worker=partial.worker)
        shape = (partial.weights.shape, partial.weights.dtype)
        if self._shape is not None and shape != self._shape:
            raise MismatchError(f"shape and dtype {shape} differ from {self._shape}", worker=partial.worker)
        self._shape = shape
        self._waiting[partial.worker] = partial
        self._sum_ready()

    def merge(self, other: Average) -> Average:
        """Take another average's partials; it must be of the same plan and have none of ours. Do not use it afterwards.

        At most one of the two holds the first worker, and only that one has begun to sum.
        """
        if (other.workers, other.fingerprint, other.weighting) != (self.workers, self.fingerprint, self.weighting):
            raise MismatchError("averages of different plans or layouts cannot be merged")
        for worker in self.workers:
            if self._holds(worker) and other._holds(worker):
                raise MismatchError("two partials from the same worker", worker=worker)
        if self._shape is not None and other._shape is not None and self._shape != other._shape:
            raise MismatchError(f"shape and dtype {other._shape} differ from {self._shape}")
        if other._summed:
            self._sum, self._single, self._summed = other._sum, other._single, other._summed
            self._weight, self.examples, self._shape = other._weight, other.examples, other._shape
        for partial in other._waiting.values():
            self.add(partial)
        self._sum_ready()
        return self

    def _holds(self, worker: int) -> bool:
        return worker in self._waiting or self._places[worker] < self._summed

    def _sum_ready(self) -> None:
        while self._summed < len(self.workers) and self.workers[self._summed] in self._waiting:
            partial = self._waiting.pop(self.workers[self._summed])
            weight = partial.examples if self.weighting == "examples" else 1
            scaled = partial.weights.astype(np.float64)
            scaled *= weight
            if self._sum is None:
                self._sum, self._single = scaled, partial.weights
            else:
                self._sum += scaled
                self._single = None
            self._weight += weight
            self.examples += partial.examples
            self._summed += 1

    @property
    def missing(self) -> list[int]:
        """Workers of the plan that have not come."""
        return [worker for worker in self.workers[self._summed :] if worker not in self._waiting]

    def finish(self) -> Vector:
        """The mean, in the partials' dtype. A single partial comes back unchanged.

        Raises `MismatchError` if a worker is missing.
        """
        if self.missing:
            raise MismatchError(f"no partial from worker {', '.join(map(str, self.missing))}")
        assert self._sum is not None
        assert self._shape is not None
        if self._single is not None:
            return self._single
        return (self._sum / self._weight).astype(self._shape[1])
