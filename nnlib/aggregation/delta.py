"""Weights as what they differ by from those that the round started from, rounded to fewer bytes (`sync.precision`).

Whoever averages has the round's start, too, so only the difference travels; the weights that count are start +
rounded difference, at the worker itself as everywhere. Differences are small and alike in size where weights are not,
so they lose less by rounding (the deltas of Seide et al. 2014 are gradients, of DiLoCo, Douillard et al. 2023, these).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnlib.aggregation.quantization import ENCODINGS, Precision, decode, encode, encode_with_feedback
from nnlib.core.arrays import Buffer, Vector
from nnlib.core.errors import MismatchError
from nnlib.core.layout import BLOCK

_SCALE_BYTES = 4
"""Of a block of int8, in float32."""


@dataclass(frozen=True)
class Delta:
    """The rounded difference of a vector of ``size`` elements: `nnlib.aggregation.quantization.encode` made
    ``data``."""

    precision: Precision
    size: int
    data: bytes

    @classmethod
    def of(cls, weights: Vector, start: Vector, precision: Precision) -> Delta:
        """Raises `DivergedError` where a difference is too large for the precision."""
        return cls(precision, len(weights), encode(_difference(weights, start), precision))

    @classmethod
    def with_feedback(
        cls, weights: Vector, start: Vector, precision: Precision, residual: Vector
    ) -> tuple[Delta, Vector]:
        """The same of the difference and ``residual``, what rounding took before; and what it took now."""
        data, residual = encode_with_feedback(_difference(weights, start), residual, precision)
        return cls(precision, len(weights), data), residual

    def cut(self, part: slice) -> bytes:
        """The bytes of a range, with the scales of the blocks it touches."""
        item = self._item
        if self.precision != "int8":
            return self.data[item * part.start : item * part.stop]
        scales = len(self.data) - self.size
        touched = _touched(part)
        return (
            self.data[_SCALE_BYTES * touched.start : _SCALE_BYTES * touched.stop]
            + self.data[scales + part.start : scales + part.stop]
        )

    @property
    def _item(self) -> int:
        return ENCODINGS[self.precision].size(1)

    def restored(self, start: Vector) -> Vector:
        """The vector that counts, in the dtype of ``start``."""
        return restore(self.data, start, slice(0, self.size), self.precision)


@dataclass(frozen=True)
class DeltaCodec:
    """`nnlib.collective.allreduce.Codec` of partials that are deltas from the same ``start`` at all workers. ``delta``
    is the worker's own; None if it has none to give."""

    precision: Precision
    start: Vector
    delta: Delta | None

    def pack(self, part: slice) -> Buffer:
        return b"" if self.delta is None else self.delta.cut(part)

    def unpack(self, data: Buffer, part: slice) -> Vector:
        return restore(np.frombuffer(data, np.uint8).data, self.start[part], part, self.precision)


def restore(data: bytes | memoryview, start: Vector, part: slice, precision: Precision) -> Vector:
    """The weights of a range from what `Delta.cut` gave and ``start``, the range's own (shape (part,)).

    Element by element, so that no cut changes one. Raises `MismatchError` for data of another length.
    """
    if precision != "int8":
        delta = decode(data, len(start), precision)
    else:
        touched = _touched(part)
        offset = _SCALE_BYTES * len(touched)
        if len(data) != offset + len(start):
            raise MismatchError(f"{len(start)} elements in int8 are {offset + len(start)} bytes, got {len(data)}")
        scales = np.frombuffer(data, "<f4", len(touched)).astype(np.float64)
        delta = np.frombuffer(data, np.int8, len(start), offset).astype(np.float64)
        for scale, block in zip(scales, touched, strict=True):
            delta[max(0, block * BLOCK - part.start) : (block + 1) * BLOCK - part.start] *= scale
    return (start.astype(np.float64) + delta).astype(start.dtype)


def _difference(weights: Vector, start: Vector) -> Vector:
    return weights.astype(np.float64) - start.astype(np.float64)


def _touched(part: slice) -> range:
    """The blocks in which a range lies."""
    return range(part.start // BLOCK, -(-part.stop // BLOCK))
