"""Weights as rounded differences: the same wherever they are cut, near enough, and refused where they do not fit."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.mapreduce.wire import decode_partial, encode_partial
from nnlib.aggregation.average import Partial
from nnlib.aggregation.delta import Delta, DeltaCodec, restore
from nnlib.aggregation.quantization import Precision
from nnlib.core.errors import DivergedError, MismatchError
from nnlib.core.layout import BLOCK, slices

PRECISIONS = get_args(Precision)
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
NEAR = {"float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}


def vectors(size: int, dtype: str = "float32", seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    start = rng.standard_normal(size).astype(dtype)
    return (start + 0.01 * rng.standard_normal(size)).astype(dtype), start


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_restored_is_near(precision: Precision, dtype: str) -> None:
    weights, start = vectors(2 * BLOCK + 100, dtype)
    delta = Delta.of(weights, start, precision)
    restored = delta.restored(start)
    assert restored.dtype == start.dtype
    difference = weights.astype(np.float64) - start.astype(np.float64)
    lost = np.abs(restored.astype(np.float64) - weights.astype(np.float64))
    rounding = np.abs(weights) * np.finfo(dtype).eps
    if precision == "int8":
        for begin in range(0, len(weights), BLOCK):
            block = slice(begin, begin + BLOCK)
            scale = np.abs(difference[block]).max() / 127
            assert (lost[block] <= 0.5001 * scale + rounding[block]).all() and lost[block].max() > 0.4 * scale
    else:
        assert (lost <= np.abs(difference) * NEAR[precision] + rounding + 2**-25).all()
    assert len(delta.data) == BYTES[precision] * len(weights) + (4 * 3 if precision == "int8" else 0)


def test_a_difference_by_hand() -> None:
    start: Any = np.array([1.0, -2.0, 0.5, 0.0], np.float32)
    weights: Any = np.array([2.27, -2.0, 0.5 - 0.632, 1e-3], np.float32)  # differences 1.27, 0, -0.632, 0.001
    assert Delta.of(weights, start, "int8").restored(start).tolist() == pytest.approx([2.27, -2.0, -0.13, 0.0])
    assert Delta.of(weights, start, "int8").data[4:] == np.array([127, 0, -63, 0], np.int8).tobytes()


@given(st.sampled_from(PRECISIONS), st.integers(0, 2 * BLOCK + 9), st.integers(0, 2 * BLOCK + 9), st.integers(1, 9))
def test_no_cut_changes_a_weight(precision: Precision, begin: int, end: int, rest: int) -> None:
    begin, end = sorted((begin, end))
    weights, start = vectors(2 * BLOCK + 9 + rest, seed=rest)
    delta = Delta.of(weights, start, precision)
    part = slice(begin, end)
    restored = restore(delta.cut(part), start[part], part, precision)
    assert restored.tobytes() == delta.restored(start)[part].tobytes()
    codec = DeltaCodec(precision, start, delta)
    assert codec.unpack(memoryview(bytes(codec.pack(part))), part).tobytes() == restored.tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_slices_travel_as_lines(precision: Precision) -> None:
    weights, start = vectors(2 * BLOCK + 5)
    delta = Delta.of(weights, start, precision)
    for part in slices(len(weights), BLOCK):
        partial = Partial(3, 17, delta.restored(start)[part], "layout")
        line = encode_partial(b"k", partial, (precision, delta.cut(part)))
        found = decode_partial(b"k", line, start[part])
        assert (found.worker, found.examples, found.fingerprint) == (3, 17, "layout")
        assert found.weights.tobytes() == partial.weights.tobytes()
        assert len(line) < len(encode_partial(b"k", partial)) or precision == "float32"
        with pytest.raises(MismatchError):
            decode_partial(b"k", line)
        with pytest.raises(MismatchError):
            decode_partial(b"k", line, start[part][:-1])


def test_what_does_not_fit_diverges() -> None:
    start: Any = np.zeros(3, np.float32)
    with pytest.raises(DivergedError, match="too large for float16"):
        Delta.of(np.array([0.0, 1e5, 0.0], np.float32), start, "float16")
    with pytest.raises(DivergedError):
        Delta.of(np.array([0.0, np.inf, 0.0], np.float32), start, "int8")
