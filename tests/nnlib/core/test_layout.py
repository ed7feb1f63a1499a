"""The layout of the flat vector: views are the vector itself, and every difference shows in the fingerprint."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest

from nnlib.core.entries import Entry, optimizer_state, parameter
from nnlib.core.errors import MismatchError
from nnlib.core.layout import BLOCK, Layout, aligned_empty, blocks, slices

ARRAYS: list[Entry] = [
    parameter("layer0.weight", (3, 4), decays=True),
    parameter("layer0.bias", (4,), decays=False),
    parameter("layer1.weight", (4, 2), decays=True),
    parameter("layer1.bias", (2,), decays=False),
]


def test_arrays_lie_back_to_back() -> None:
    layout = Layout.build(ARRAYS, "float32")
    assert [entry.range for entry in layout.entries] == [slice(0, 12), slice(12, 16), slice(16, 24), slice(24, 26)]
    assert (layout.size, layout.itemsize) == (26, 4)
    assert layout.weight_ranges() == [slice(0, 12), slice(16, 24)]


def test_views_share_memory_both_ways() -> None:
    layout = Layout.build(ARRAYS, "float64")
    flat = np.arange(26.0)
    views = layout.views(flat)
    np.testing.assert_array_equal(views["layer0.weight"], np.arange(12.0).reshape(3, 4))
    assert all(np.shares_memory(view, flat) for view in views.values())
    views["layer1.weight"][1, 1] = -1.0
    assert flat[16 + 3] == -1.0
    flat[25] = -2.0
    assert views["layer1.bias"][1] == -2.0
    assert list(views) == [entry.name for entry in ARRAYS]


@pytest.mark.parametrize(
    "flat",
    [np.zeros(25, np.float32), np.zeros(27, np.float32), np.zeros(26), np.zeros((1, 26), np.float32)],
)
def test_another_vector_is_refused(flat: Any) -> None:
    layout = Layout.build(ARRAYS, "float32")
    with pytest.raises(MismatchError, match="expected a vector of 26 float32") as caught:
        layout.views(flat)
    assert caught.value.where["layout"] == layout.fingerprint


def test_every_change_shows_in_the_fingerprint() -> None:
    base = Layout.build(ARRAYS, "float32")
    others = [
        Layout.build(ARRAYS, "float64"),
        Layout.build(ARRAYS[::-1], "float32"),
        Layout.build(ARRAYS[:-1], "float32"),
        Layout.build([parameter("layer0.Weight", (3, 4), decays=True), *ARRAYS[1:]], "float32"),
        Layout.build([parameter("layer0.weight", (4, 3), decays=True), *ARRAYS[1:]], "float32"),
        Layout.build([parameter("layer0.weight", (12,), decays=True), *ARRAYS[1:]], "float32"),
        Layout.build([parameter("layer0.weight", (3, 4), decays=False), *ARRAYS[1:]], "float32"),
        base.extended([optimizer_state("velocity", (26,))]),
        base.extended([optimizer_state("velocity", (0,))]),
    ]
    for one, two in combinations([base, *others], 2):
        assert one.fingerprint != two.fingerprint
    assert base.fingerprint == "d9dfc9799c70f61d"  # stored in every checkpoint: it must never change by itself


def test_the_text_behind_a_fingerprint_is_that_of_older_versions() -> None:
    layout = Layout.build(ARRAYS, "float32").extended([optimizer_state("velocity", (26,))])
    assert layout.to_json() == {
        "arrays": [
            ["layer0.weight", [3, 4], "weight"],
            ["layer0.bias", [4], "bias"],
            ["layer1.weight", [4, 2], "weight"],
            ["layer1.bias", [2], "bias"],
            ["velocity", [26], "state"],
        ],
        "dtype": "float32",
    }
    assert layout.entries[-1].range == slice(26, 52)
    assert layout.weight_ranges() == [slice(0, 12), slice(16, 24)]


def test_only_two_dtypes() -> None:
    with pytest.raises(ValueError, match="float16"):
        Layout.build(ARRAYS, "float16")


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 7])
@pytest.mark.parametrize("elements", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK, 10**9])
def test_slices_cover_once_and_end_on_blocks(size: int, elements: int) -> None:
    parts = slices(size, elements)
    assert parts[0].start == 0 and parts[-1].stop == size
    assert all(before.stop == after.start for before, after in pairwise(parts))
    assert all(part.stop % BLOCK == 0 for part in parts[:-1])
    assert all(0 < part.stop - part.start <= -(-elements // BLOCK) * BLOCK for part in parts) or size == 0
    assert len(parts) == max(1, -(-size // (-(-elements // BLOCK) * BLOCK)))  # no more than are needed
    ends = {part.stop for part in blocks(size)}
    assert {part.stop for part in parts} <= ends


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("alignment", [64, 4096])
def test_alignment(size: int, dtype: str, alignment: int) -> None:
    for _ in range(20):
        vector = aligned_empty(size, dtype, alignment)
        assert vector.shape == (size,) and vector.dtype == dtype
        assert vector.flags.c_contiguous and vector.flags.writeable
        assert size == 0 or vector.ctypes.data % alignment == 0
        vector[:] = 1  # the memory is all its own
