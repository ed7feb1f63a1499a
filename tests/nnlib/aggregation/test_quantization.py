"""Lossy encodings: nearest, the same bits however cut, nothing lost with error feedback."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnlib.aggregation.quantization import Precision, decode, encode, encode_with_feedback, encoded_size
from nnlib.core.errors import DivergedError, MismatchError
from nnlib.core.layout import BLOCK

PRECISIONS = get_args(Precision)
MODERATE = st.floats(-60000, 60000, allow_nan=False)


def bfloat16_by_hand(value: float) -> float:
    """The nearest of all bfloat16 around a value, ties to even, in exact arithmetic."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    near = [bits // 2**16 + step for step in (-1, 0, 1)]
    magnitude = {code: struct.unpack("<f", struct.pack("<I", code << 16))[0] for code in near if code >= 0}
    sign_ok = {
        code: found
        for code, found in magnitude.items()
        if found == found and abs(found) != float("inf") and (code >> 15) == (bits >> 31)
    }
    best = min(sign_ok, key=lambda code: (abs(Fraction(sign_ok[code]) - Fraction(value)), code & 1))
    return float(sign_ok[best])


@given(arrays(np.float64, st.integers(0, 40), elements=MODERATE), st.sampled_from(["float32", "float16"]))
def test_floats_are_what_numpy_rounds(values: np.ndarray, precision: Precision) -> None:
    expected = values.astype(precision).astype(np.float64)
    assert decode(encode(values, precision), len(values), precision).tobytes() == expected.tobytes()


@given(MODERATE)
@example(1.0 + 2.0**-8)  # a tie, to even: down
@example(1.0 + 3 * 2.0**-8)  # a tie, to even: up
@example(1.0 + 2.0**-8 + 2.0**-40)  # a float32 would make it a tie and round down
@example(1.0 + 3 * 2.0**-8 - 2.0**-40)
@example(-1.0 - 2.0**-8 - 2.0**-40)
@example(2.0**-130)
@example(-0.0)
def test_bfloat16_is_the_nearest(value: float) -> None:
    (found,) = decode(encode(np.array([value]), "bfloat16"), 1, "bfloat16")
    assert found == bfloat16_by_hand(value)


def test_int8_by_hand() -> None:
    values = np.array([127.0, -127.0, 0.5, 1.5, -2.5, 3.4], np.float32)
    data = encode(values, "int8")
    assert data == struct.pack("<f6b", 1.0, 127, -127, 0, 2, -2, 3)
    assert decode(data, 6, "int8").tolist() == [127.0, -127.0, 0.0, 2.0, -2.0, 3.0]


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_int8_is_off_by_half_a_step_at_most(values: np.ndarray) -> None:
    found = decode(encode(values, "int8"), len(values), "int8")
    step = float(np.float32(np.max(np.abs(values.astype(np.float64))) / 127))
    slack = step * 1e-4 if step > 1e-37 else 127 * 1e-45  # scales below float32's normal numbers are coarse
    assert np.all(np.abs(found - values) <= step / 2 + slack)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_are_as_many_as_said_and_float64_gives_what_float32_gives(precision: Precision) -> None:
    values = np.random.default_rng(1).standard_normal(2 * BLOCK + 17).astype(np.float32)
    data = encode(values, precision)
    assert len(data) == encoded_size(len(values), precision)
    assert encode(values.astype(np.float64), precision) == data
    assert encode(values[:0], precision) == b""
    assert len(decode(b"", 0, precision)) == 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_slices_on_block_edges_give_the_same_numbers(precision: Precision) -> None:
    values = np.random.default_rng(2).standard_normal(3 * BLOCK + 5).astype(np.float32)
    values[BLOCK : 2 * BLOCK] *= 1000.0  # a block's scale is its own
    whole = decode(encode(values, precision), len(values), precision)
    for edges in ([0, BLOCK, 3 * BLOCK], [0, 2 * BLOCK]):
        parts = [values[begin:end] for begin, end in zip(edges, [*edges[1:], None], strict=True)]
        cut = [decode(encode(part, precision), len(part), precision) for part in parts]
        assert np.concatenate(cut).tobytes() == whole.tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(precision: Precision, bad: float) -> None:
    with pytest.raises(DivergedError, match="element 2"):
        encode(np.array([0.0, 1.0, bad], np.float32), precision)


@pytest.mark.parametrize(
    ("precision", "value"), [("float32", 1e39), ("float16", 65520.0), ("bfloat16", 3.4e38), ("int8", 1e300)]
)
def test_too_large_is_refused(precision: Precision, value: float) -> None:
    with pytest.raises(DivergedError, match="too large"):
        encode(np.array([value]), precision)


def test_another_length_is_refused() -> None:
    with pytest.raises(MismatchError, match="3 elements in int8 are 7 bytes, got 6"):
        decode(b"123456", 3, "int8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_error_feedback_loses_nothing(precision: Precision) -> None:
    """What was decoded so far and the residual are together what was given, up to float64's own rounding."""
    random = np.random.default_rng(3)
    residual = np.zeros(1000)
    given_so_far, decoded = np.zeros(1000), np.zeros(1000)
    for _ in range(50):
        values = random.standard_normal(1000).astype(np.float32)
        given_so_far += values
        data, residual = encode_with_feedback(values, residual, precision)
        decoded += decode(data, 1000, precision)
    assert np.allclose(decoded + residual, given_so_far, rtol=0, atol=1e-10)
    assert np.max(np.abs(residual)) < 0.05  # and it does not grow


def test_error_feedback_by_hand() -> None:
    """In steps of 1.0, 0.4 is nothing; what is taken adds up until it is a step."""
    residual, given = np.zeros(2, np.float32), []
    for _ in range(5):
        data, residual = encode_with_feedback(np.array([127.0, 0.4]), residual, "int8")
        given.append(decode(data, 2, "int8")[1])
        assert residual.dtype == np.float32
    assert given == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert residual.tolist() == pytest.approx([0.0, 5 * 0.4 - 2.0], abs=1e-6)
