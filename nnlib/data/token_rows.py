"""Rows of tokens: the ids of a row, then one bit for each that says whether it counts.

A dataset stores both in its column ``x``, so whatever moves rows moves masks as well. A row of ``length`` ids has
``length`` numbers and, behind them, ceil(length / 16) words of 16 bits, whose lowest bit is that of the first id. A
float32 holds every such number exactly, if the vocabulary is below 2**24.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnlib.data.token_widths import row_length, row_width

Rows = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def join_rows(tokens: Rows, mask: Mask) -> Rows:
    """Return rows, shape (n, `row_width` (length)), of the type of ``tokens``; both arguments: shape (n, length)."""
    rows, length = tokens.shape
    bits = np.packbits(mask, axis=1, bitorder="little")
    words = np.zeros((rows, 2 * (row_width(length) - length)), np.uint8)
    words[:, : bits.shape[1]] = bits
    return np.concatenate([tokens, words.view("<u2").astype(tokens.dtype)], axis=1)


def split_rows(rows: Rows) -> tuple[npt.NDArray[np.int64], Mask]:
    """Return the tokens and the mask of rows, both of shape (n, length): the inverse of `join_rows`, for rows of any
    type of numbers. Raises `DataError` for rows that are none of tokens."""
    length = row_length(rows.shape[1])
    words = np.ascontiguousarray(rows[:, length:].astype("<u2")).view(np.uint8)
    mask = np.unpackbits(words, axis=1, count=length, bitorder="little").astype(np.bool_)
    return rows[:, :length].astype(np.int64), mask
