"""Quantization: lossy encodings of a difference vector in fewer bytes, the same bits wherever the vector is cut.

float32, float16 and bfloat16 round each number to the nearest, ties to even. int8 has one scale for each block of
`nnlib.core.layout.BLOCK` elements, max |x| / 127 in float32, and rounds x / scale to the nearest whole number, ties to
even (8-bit quantization as in Dettmers 2016, here with a linear scale). Nothing is drawn at random. What rounding takes
away can be kept and added the next time: `encode_with_feedback`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Vector
from nnlib.core.errors import DivergedError, MismatchError
from nnlib.core.layout import BLOCK, blocks

Precision = Literal["float32", "float16", "bfloat16", "int8"]

_STEPS = 127
"""Of int8 on each side of 0: -128 is not used, so that the scale is the same for both."""

SCALE_BYTES = 4
"""Of a block of int8, in float32."""


@dataclass(frozen=True)
class VectorEncoding:
    """One precision: ``encode`` makes bytes of a vector, ``decode`` the float64 numbers that they stand for.

    ``size`` and ``decode`` take a range: ``size(elements, start)``, ``decode(data, elements, start)`` are of so many
    elements, of which the first is element ``start`` of the vector that was encoded.
    """

    encode: Callable[[Vector], bytes]
    decode: Callable[[bytes, int, int], npt.NDArray[np.float64]]
    size: Callable[[int, int], int]


def encode(values: Vector, precision: Precision) -> bytes:
    """Encode a vector of shape (n,), float32 or float64, which for int8 begins on an edge of a block.

    Raises `DivergedError` for NaN, infinity and numbers too large for the precision.
    """
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        raise DivergedError(f"element {index} is {values[index]}")
    return ENCODINGS[precision].encode(values)


def encoded_size(size: int, precision: Precision) -> int:
    """Bytes that `encode` makes of a vector of ``size`` elements."""
    return ENCODINGS[precision].size(size, 0)


def decode(data: bytes | memoryview, size: int, precision: Precision, start: int = 0) -> npt.NDArray[np.float64]:
    """Decode the numbers, shape (size,), of a range that begins at element ``start`` of the encoded vector.

    ``data`` are the range's bytes, for int8 behind the scales of all blocks that it touches. Raises `MismatchError` for
    another length.
    """
    encoding = ENCODINGS[precision]
    if len(data) != encoding.size(size, start):
        raise MismatchError(f"{size} elements in {precision} are {encoding.size(size, start)} bytes, got {len(data)}")
    return encoding.decode(bytes(data), size, start)


def blocks_touched(start: int, stop: int) -> range:
    """Number the blocks that a range of elements touches."""
    return range(start // BLOCK, -(-stop // BLOCK))


def encode_with_feedback(values: Vector, residual: Vector, precision: Precision) -> tuple[bytes, Vector]:
    """Encode ``values`` plus the residual: what rounding took from the vectors before, at first zeros.

    Returns the bytes and the next residual, of the same shape and dtype. It is state, and belongs into checkpoints.

    Seide et al. 2014, "1-bit stochastic gradient descent"; Karimireddy et al. 2019, "Error feedback fixes
    SignSGD" (algorithm 2), here of a round's difference instead of a step's gradient.
    """
    wanted = values.astype(np.float64) + residual
    data = encode(wanted, precision)
    return data, (wanted - decode(data, len(wanted), precision)).astype(residual.dtype)


def _plain(dtype: str) -> VectorEncoding:
    kind = np.dtype(dtype)

    def to_bytes(values: Vector) -> bytes:
        with np.errstate(over="ignore"):
            rounded = values.astype(kind)
        _refuse_overflow(values, np.isfinite(rounded), kind.name)
        return rounded.tobytes()

    def from_bytes(data: bytes, size: int, start: int) -> npt.NDArray[np.float64]:
        return np.frombuffer(data, kind, size).astype(np.float64)

    return VectorEncoding(to_bytes, from_bytes, lambda size, start: size * kind.itemsize)


def _to_bfloat16(values: Vector) -> bytes:
    """The upper half of a float32's bits, rounded. From float64 to odd first, so that nothing is rounded twice."""
    single = values.astype("<f4") if values.dtype == np.float32 else _rounded_to_odd(values)
    bits = single.view("<u4").astype(np.uint32)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    _refuse_overflow(values, (upper & 0x7F80) != 0x7F80, "bfloat16")
    return upper.tobytes()


def _rounded_to_odd(values: Vector) -> npt.NDArray[np.float32]:
    """float64 to float32, inexact numbers to the neighbour with an odd last bit (Boldo and Melquiond 2008): rounding
    those again to fewer bits gives what rounding once would."""
    with np.errstate(over="ignore"):
        single = values.astype("<f4")
    back = single.astype(np.float64)
    bits = single.view("<u4").copy()
    inexact = back != values
    away = np.abs(back) > np.abs(values)
    bits[inexact & away] -= 1  # towards zero: one less in sign and magnitude
    bits[inexact] |= 1
    return bits.view("<f4")


def _from_bfloat16(data: bytes, size: int, start: int) -> npt.NDArray[np.float64]:
    bits = np.frombuffer(data, "<u2", size).astype("<u4") << 16
    return bits.view("<f4").astype(np.float64)


def _to_int8(values: Vector) -> bytes:
    """All scales, then all numbers."""
    parts = blocks(len(values)) if len(values) else []
    scales = np.empty(len(parts), "<f4")
    numbers = np.empty(len(values), np.int8)
    for number, part in enumerate(parts):
        block = values[part].astype(np.float64)
        with np.errstate(over="ignore"):
            scales[number] = np.max(np.abs(block)) / _STEPS
        if not np.isfinite(scales[number]):
            raise DivergedError("a number is too large for int8's float32 scale")
        if scales[number]:
            # a scale that was rounded down, or is subnormal, would lead beyond the last step
            numbers[part] = np.clip(np.rint(block / np.float64(scales[number])), -_STEPS, _STEPS)
        else:
            numbers[part] = 0
    return scales.tobytes() + numbers.tobytes()


def _from_int8(data: bytes, size: int, start: int) -> npt.NDArray[np.float64]:
    touched = blocks_touched(start, start + size)
    scales = np.frombuffer(data, "<f4", len(touched)).astype(np.float64)
    numbers = np.frombuffer(data, np.int8, size, SCALE_BYTES * len(touched)).astype(np.float64)
    for scale, block in zip(scales, touched, strict=True):
        numbers[max(0, block * BLOCK - start) : (block + 1) * BLOCK - start] *= scale
    return numbers


def _int8_size(size: int, start: int) -> int:
    return size + SCALE_BYTES * len(blocks_touched(start, start + size))


def _refuse_overflow(values: Vector, finite: npt.NDArray[np.bool_], name: str) -> None:
    if not finite.all():
        raise DivergedError(
            f"element {int(np.argmin(finite))} is {values[int(np.argmin(finite))]}: too large for {name}"
        )


ENCODINGS: dict[Precision, VectorEncoding] = {
    "float32": _plain("<f4"),
    "float16": _plain("<f2"),
    "bfloat16": VectorEncoding(_to_bfloat16, _from_bfloat16, lambda size, start: 2 * size),
    "int8": VectorEncoding(_to_int8, _from_int8, _int8_size),
}
