"""Weights sent as their difference from the start of the round, rounded to fewer bytes (`sync.precision`).

The averaging task has the round's start, too, so only the difference travels. The weights that count are start +
rounded difference, at the worker itself as everywhere. Differences are small and similar in size where weights are not,
so they lose less by rounding (the deltas of Seide et al. 2014 are gradients, of DiLoCo, Douillard et al. 2023, these).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnlib.aggregation.quantization import (
    SCALE_BYTES,
    Precision,
    blocks_touched,
    decode,
    encode,
    encode_with_feedback,
    encoded_size,
)
from nnlib.core.arrays import Buffer, Vector


@dataclass(frozen=True)
class Delta:
    """The rounded difference of a vector of ``size`` elements: `nnlib.aggregation.quantization.encode` made
    ``data``."""

    precision: Precision
    size: int
    data: bytes

    @classmethod
    def of(cls, weights: Vector, start: Vector, precision: Precision) -> Delta:
        """Round the difference. Raises `DivergedError` where it is too large for the precision."""
        return cls(precision, len(weights), encode(_difference(weights, start), precision))

    @classmethod
    def with_feedback(
        cls, weights: Vector, start: Vector, precision: Precision, residual: Vector
    ) -> tuple[Delta, Vector]:
        """Round the sum of the difference and ``residual``, which is what rounding took before. Returns the delta and
        the next residual. Raises `DivergedError` as `of` does."""
        data, residual = encode_with_feedback(_difference(weights, start), residual, precision)
        return cls(precision, len(weights), data), residual

    def cut(self, part: slice) -> bytes:
        """Cut out the bytes of a range, for int8 behind the scales of the blocks that it touches."""
        if self.precision != "int8":
            item = encoded_size(1, self.precision)
            return self.data[item * part.start : item * part.stop]
        scales = len(self.data) - self.size
        touched = blocks_touched(part.start, part.stop)
        return (
            self.data[SCALE_BYTES * touched.start : SCALE_BYTES * touched.stop]
            + self.data[scales + part.start : scales + part.stop]
        )

    def restored(self, start: Vector) -> Vector:
        """Compute the vector that counts, in the dtype of ``start``."""
        return restore(self.data, start, slice(0, self.size), self.precision)


@dataclass(frozen=True)
class DeltaCodec:
    """The `nnlib.collective.allreduce.Codec` of partials that are deltas from the same ``start`` at all workers.
    ``delta`` is this worker's, None where it has no examples."""

    precision: Precision
    start: Vector
    delta: Delta | None

    def pack(self, part: slice) -> Buffer:
        """See `nnlib.collective.allreduce.Codec.pack`."""
        return b"" if self.delta is None else self.delta.cut(part)

    def unpack(self, data: Buffer, part: slice) -> Vector:
        """See `nnlib.collective.allreduce.Codec.unpack`."""
        return restore(np.frombuffer(data, np.uint8).data, self.start[part], part, self.precision)


def restore(data: bytes | memoryview, start: Vector, part: slice, precision: Precision) -> Vector:
    """Compute the weights of a range from the bytes that `Delta.cut` made and the range of the start, shape (n,).

    Element by element, so that no cut changes one. Raises `MismatchError` for data of another length.
    """
    delta = decode(data, len(start), precision, part.start)
    return (start.astype(np.float64) + delta).astype(start.dtype)


def _difference(weights: Vector, start: Vector) -> Vector:
    return weights.astype(np.float64) - start.astype(np.float64)
