"""Rows of tokens hold ids and masks, and every length has its width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.core.errors import DataError
from nnlib.data.token_rows import join_rows, split_rows
from nnlib.data.token_widths import row_length, row_width


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(0, 5), st.sampled_from(["uint16", "uint32"]), st.integers(0, 2**32 - 1))
def test_what_is_joined_is_split_again_also_as_float32(length: int, rows: int, dtype: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    tokens = random.integers(0, 1 << (16 if dtype == "uint16" else 24), (rows, length)).astype(dtype)
    mask = random.random((rows, length)) < 0.5
    joined = join_rows(tokens, mask)
    assert joined.shape == (rows, row_width(length)) and joined.dtype == dtype
    for stored in (joined, joined.astype(np.float32)):  # as a model gets it
        again, counts = split_rows(stored)
        assert np.array_equal(again, tokens) and np.array_equal(counts, mask)


def test_a_row_worked_by_hand() -> None:
    joined = join_rows(np.array([[7, 8, 9]], np.uint16), np.array([[False, True, True]]))
    assert joined.tolist() == [[7, 8, 9, 0b110]]


def test_widths_that_no_row_of_tokens_has() -> None:
    widths = {row_width(length) for length in range(1, 200)}
    for width in range(1, 200):
        if width in widths:
            assert row_width(row_length(width)) == width
        else:
            with pytest.raises(DataError, match="no rows of tokens"):
                row_length(width)
