"""How wide rows of tokens are (`nnlib.data.token_rows`): commands need it before numpy is loaded."""

from __future__ import annotations

from nnlib.core.errors import DataError

WORD_BITS = 16
"""Bits of the mask in one number of a row."""

MOST_TOKENS = 1 << 24
"""The largest vocabulary: models get ids as float32."""


def row_width(length: int) -> int:
    """Return how many numbers a row of ``length`` tokens has."""
    return length + -(-length // WORD_BITS)


def row_length(width: int) -> int:
    """Return how many tokens a row of ``width`` numbers has. Raises `DataError` where rows of tokens have no such
    width."""
    length = WORD_BITS * width // (WORD_BITS + 1)
    if length < 1 or row_width(length) != width:
        raise DataError(
            f"rows of {width} numbers are no rows of tokens",
            hint="make the dataset with `nnjobs data tokenize`, or with `nnjobs data import --text`",
        )
    return length
