"""Which features need float64: those whose distinct values float32 would merge, such as Unix times and large ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array, BoolArray

BLOCK_ROWS = 16_384
"""Rows whose values are compared with one another."""

MOST_MERGED = 1e-3
"""The most of a block's distinct values that float32 may merge. Of 16,384 measured doubles it merges a few by chance,
which no model notices; of fewer than 1000 values it may merge none."""

FINE = 2.0**-22
"""Rounding errors below this part of a block's standard deviation are those of ordinary measured values."""

_EXACT = 2.0**24
"""float32 holds every whole number up to this size."""

_MOST_WHOLE = 2.0**53
"""float64 holds every whole number up to this size; beyond it, every number is whole."""

_MOST_INTEGER = 2.0**64
"""Numbers from here on are measured ones: no usual type of integers holds them."""

_SAMPLE_STEP = 16
"""Every 16th row of a block estimates its standard deviation."""


class PrecisionCheck:
    """Finds the features of a file that need float64, from its rows in order.

    A feature needs it where, among `BLOCK_ROWS` rows, there is a whole number that float32 cannot hold or a number too
    large for it, or where float32 would merge more than `MOST_MERGED` of the distinct values. From the second call of
    `add` on, blocks with rounding errors below `FINE` are not compared. ``needed``: by feature, shape (features,).
    ``beyond``: whether it has numbers of the size of integers that float64 does not hold either, shape (features,).
    """

    def __init__(self, features: int) -> None:
        self.needed: BoolArray = np.zeros(features, np.bool_)
        self.beyond: BoolArray = np.zeros(features, np.bool_)
        self._is_first = True

    def add(self, blocks: Sequence[Array]) -> bool:
        """Look at the next rows: the features of each column, shape (n, width), of any numeric type.

        Returns whether float32 holds all of them exactly.
        """
        exact = True
        start = 0
        for block in blocks:
            needed = self.needed[start : start + block.shape[1]]
            beyond = self.beyond[start : start + block.shape[1]]
            start += block.shape[1]
            for first in range(0, len(block), BLOCK_ROWS):
                exact = self._look(block[first : first + BLOCK_ROWS], needed, beyond) and exact
        self._is_first = False
        return exact

    def _look(self, values: Array, needed: BoolArray, beyond: BoolArray) -> bool:
        """Set ``needed``, shape (width,), where ``values``, shape (n, width), need float64, and ``beyond``. Returns
        whether float32 holds them exactly."""
        if values.dtype.kind == "b" or values.dtype.itemsize < 4 or values.dtype == np.float32:
            return True
        if values.dtype.kind in "iu" and not (values.size and (values.max() > _EXACT or values.min() < -_EXACT)):
            return True
        wide = values.astype(np.float64, copy=False)
        with np.errstate(over="ignore"):
            errors = wide.astype(np.float32).astype(np.float64)
        np.subtract(errors, wide, out=errors)
        np.abs(errors, out=errors)
        worst = np.fmax.reduce(errors, axis=0)  # missing values are NaN
        if not (worst > 0.0).any():
            return True
        for feature in np.flatnonzero((worst > 0.0) & ~needed):
            needed[feature] = np.isinf(worst[feature]) or _has_large_whole(wide[:, feature], errors[:, feature])
        for feature in np.flatnonzero((worst >= 1.0) & ~beyond):
            sizes = np.abs(wide[:, feature])
            beyond[feature] = ((sizes > _MOST_WHOLE) & (sizes < _MOST_INTEGER)).any()
        open_ = (worst > 0.0) & ~needed
        if not self._is_first:
            open_ &= ~(worst <= FINE * _spread(wide))
        for feature in np.flatnonzero(open_):
            needed[feature] = _merges_many(wide[:, feature])
        return False


def _spread(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return an estimate of the standard deviation of each column, NaN or 0 where there is none."""
    sample = values[::_SAMPLE_STEP]
    spread: npt.NDArray[Any] = sample.std(axis=0)
    missing = np.isnan(spread)
    if missing.any():
        for feature in np.flatnonzero(missing):
            column = sample[:, feature]
            spread[feature] = np.std(column[~np.isnan(column)]) if np.isfinite(column).any() else 0.0
    return spread


def _has_large_whole(values: npt.NDArray[np.float64], errors: npt.NDArray[np.float64]) -> bool:
    """Return whether there is a whole number that float64 holds and float32 changes by ``errors``, shape (n,) both."""
    if not (np.fmax.reduce(values) > _EXACT or np.fmin.reduce(values) < -_EXACT):
        return False
    whole = (errors > 0.0) & (np.abs(values) <= _MOST_WHOLE) & (np.floor(values) == values)
    return bool(whole.any())


def _merges_many(values: npt.NDArray[np.float64]) -> bool:
    """Return whether float32 merges more than `MOST_MERGED` of the distinct numbers among ``values``, shape (n,)."""
    ordered = np.sort(values)
    ordered = ordered[: np.searchsorted(ordered, np.nan)]  # missing values come last
    differ = ordered[1:] != ordered[:-1]
    merged = differ & (ordered[1:].astype(np.float32) == ordered[:-1].astype(np.float32))
    return int(np.count_nonzero(merged)) > MOST_MERGED * (1 + int(np.count_nonzero(differ)))
