"""The averaging: partials in, one model out.

A partial is never a bare vector: it names its worker, the number of examples behind it and its layout. The average is
the float64 sum, in worker order, of weight_k * w_k, divided by the sum of the weights and rounded once to the model's
dtype ("Distributed Neural Networks: A Parallel Approach", section 4: model averaging by all-reduce; weighted by
examples as in McMahan et al. 2017, FedAvg). Buffers with another rule are combined by that rule, and exactly
(`nnlib.core.entries.Rule`). An `Average` is mergeable: whatever the order of arrival and merging, partials are taken in
worker order, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Vector
from nnlib.core.entries import Rule, Segment
from nnlib.core.errors import DivergedError, MismatchError

Weighting = Literal["examples", "equal"]

MAX_EXAMPLES = 2**53
"""Up to here every whole number is a float64, so no weight of an average is rounded."""


@dataclass(frozen=True)
class Partial:
    """One worker's values of a vector, or of one slice of it.

    ``weights`` has shape (n,) and the vector's dtype; ``examples`` is the number of rows it was trained on, at least 1;
    ``fingerprint`` is the layout's.
    """

    worker: int
    examples: int
    weights: Vector
    fingerprint: str

    def check(self, segment: Segment | None = None) -> None:
        """Refuse what must never enter an average. ``segment`` is that of the vector: by default a model's flat one.

        Raises `MismatchError` for another shape or dtype and for no examples, `DivergedError` for a number that is not
        finite.
        """
        if not 0 < self.examples <= MAX_EXAMPLES:
            raise MismatchError(f"a partial needs 1 to 2**53 examples, got {self.examples}", worker=self.worker)
        check_vector(self.weights, segment, self.worker)
        if segment is None or segment.rule != "keep":
            check_finite(self.weights, self.worker)


def check_vector(values: Vector, segment: Segment | None, worker: int) -> None:
    """Refuse an array that is no vector of its segment's dtype (None: float32 or float64), with a `MismatchError`."""
    dtypes = ("float32", "float64") if segment is None else (segment.dtype,)
    if values.ndim != 1 or values.dtype.name not in dtypes:
        raise MismatchError(
            f"expected a vector of {' or '.join(dtypes)}, got shape {values.shape} {values.dtype}", worker=worker
        )


def check_finite(values: Vector, worker: int, offset: int = 0) -> None:
    """Refuse numbers that are not finite, with a `DivergedError` that counts them from ``offset``."""
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        raise DivergedError(f"weight {offset + index} is {values[index]}", worker=worker)


def combine_exactly(total: Vector, values: Vector, segment: Segment, *, offset: int, worker: int, first: int) -> Vector:
    """Combine two workers' values of a range, which begins at ``offset`` of the segment, by the rule max or keep.

    ``total`` are those of the workers from ``first`` on, which come before ``worker``. Raises `MismatchError` where
    values that are to be kept differ.
    """
    if segment.rule == "max":
        greater: Vector = np.maximum(total, values)
        return greater
    bits = f"u{total.dtype.itemsize}"  # compare bits, not numbers: a NaN is the same as itself
    differing = np.flatnonzero(total.view(bits) != values.view(bits))
    if differing.size:
        entry = segment.entry_at(offset + int(differing[0]))
        raise MismatchError(
            f"buffer {entry.name} must be the same at all workers, but differs between worker {first} and {worker}",
            hint="combine it by another rule (mean, max), or do not change it in training",
            worker=worker,
        )
    return total


class Average:
    """The combination of the partials of ``workers``, whatever order they come in: their mean, or by the rule of
    ``segment``, of which they are the range that begins at ``offset``.

    Partials are taken in ascending order of workers; one that comes before its turn waits. Memory is one float64 vector
    and the waiting partials: O(n) where values arrive sorted, as a reducer's do.
    """

    def __init__(
        self,
        workers: Sequence[int],
        fingerprint: str,
        weighting: Weighting = "examples",
        segment: Segment | None = None,
        offset: int = 0,
    ) -> None:
        self.workers = sorted(workers)
        if not self.workers or len(set(self.workers)) != len(self.workers):
            raise ValueError(f"workers must be distinct and at least one, got {list(workers)}")
        self.fingerprint = fingerprint
        self.weighting = weighting
        self._segment, self._offset = segment, offset
        self._positions = {worker: position for position, worker in enumerate(self.workers)}
        self._total: Vector | None = None  # the float64 sum, or by another rule what was combined so far
        self._single: Vector | None = None
        self._summed = 0
        self._waiting: dict[int, Partial] = {}
        self._weight = 0
        self._shape: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        self.examples = 0

    @property
    def rule(self) -> Rule:
        """How the partials are combined."""
        return "mean" if self._segment is None else self._segment.rule

    def add(self, partial: Partial) -> None:
        """Take one worker's partial.

        Raises `MismatchError` for another layout, a worker that is not in the plan or has come already, zero weight and
        values that differ though they are to be kept; `DivergedError` for values that are not finite.
        """
        partial.check(self._segment)
        if partial.fingerprint != self.fingerprint:
            raise MismatchError(
                f"layout {partial.fingerprint} does not match {self.fingerprint}: another model's weights",
                worker=partial.worker,
            )
        if partial.worker not in self._positions:
            raise MismatchError("a partial from a worker that is not in the plan", worker=partial.worker)
        if self._holds(partial.worker):
            raise MismatchError("two partials from the same worker", worker=partial.worker)
        shape = (partial.weights.shape, partial.weights.dtype)
        if self._shape is not None and shape != self._shape:
            raise MismatchError(f"shape and dtype {shape} differ from {self._shape}", worker=partial.worker)
        self._shape = shape
        self._waiting[partial.worker] = partial
        self._take_waiting()

    def merge(self, other: Average) -> Average:
        """Take another average's partials; it must be of the same plan and have none of ours. Do not use it afterwards.

        At most one of the two holds the first worker, and only that one has begun to sum. Raises `MismatchError`.
        """
        if other._plan != self._plan:
            raise MismatchError("averages of different plans or layouts cannot be merged")
        for worker in self.workers:
            if self._holds(worker) and other._holds(worker):
                raise MismatchError("two partials from the same worker", worker=worker)
        if self._shape is not None and other._shape is not None and self._shape != other._shape:
            raise MismatchError(f"shape and dtype {other._shape} differ from {self._shape}")
        if other._summed:
            self._total, self._single, self._summed = other._total, other._single, other._summed
            self._weight, self.examples, self._shape = other._weight, other.examples, other._shape
        for partial in other._waiting.values():
            self.add(partial)
        self._take_waiting()
        return self

    @property
    def _plan(self) -> tuple[Any, ...]:
        return self.workers, self.fingerprint, self.weighting, self._segment, self._offset

    def _holds(self, worker: int) -> bool:
        return worker in self._waiting or self._positions[worker] < self._summed

    def _take_waiting(self) -> None:
        while self._summed < len(self.workers) and self.workers[self._summed] in self._waiting:
            partial = self._waiting.pop(self.workers[self._summed])
            weight = partial.examples if self.weighting == "examples" else 1
            total = self._combined(partial, weight)
            self._single = partial.weights if self._total is None else None
            self._total = total
            self._weight += weight
            self.examples += partial.examples
            self._summed += 1

    def _combined(self, partial: Partial, weight: int) -> Vector:
        if self._segment is None or self._segment.rule == "mean":
            scaled: npt.NDArray[np.float64] = partial.weights.astype(np.float64)
            scaled *= weight
            if self._total is not None:
                self._total += scaled
                return self._total
            return scaled
        if self._total is None:
            return partial.weights
        return combine_exactly(
            self._total,
            partial.weights,
            self._segment,
            offset=self._offset,
            worker=partial.worker,
            first=self.workers[0],
        )

    @property
    def missing(self) -> list[int]:
        """Workers of the plan that have not come."""
        return [worker for worker in self.workers[self._summed :] if worker not in self._waiting]

    def finish(self) -> Vector:
        """The combined vector, in the partials' dtype. A single partial comes back unchanged.

        Raises `MismatchError` if a worker is missing.
        """
        if self.missing:
            raise MismatchError(f"no partial from worker {', '.join(map(str, self.missing))}")
        assert self._total is not None
        assert self._shape is not None
        if self._single is not None:
            return self._single
        if self.rule != "mean":
            return self._total
        mean: Vector = (self._total / self._weight).astype(self._shape[1])
        return mean
