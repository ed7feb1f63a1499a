"""Convert stored features to the features of a model: the same for training, scoring and prediction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array
from nnlib.data.scaling import Scaler

_WIDE_ROWS = 1024
"""Rows that are converted in float64 at once: more would take memory and no less time."""


class Converter:
    """Converts stored features to those of a model, of type ``dtype``.

    The steps are, elementwise and always in this order: cast, * x_scale, + x_offset, - scaler.shift, * scaler.factor;
    steps that change nothing are left out. They are taken in ``dtype`` or, if ``is_wide`` (features stored as float64),
    in float64 and rounded to ``dtype`` once. Each element is rounded by itself, so the bits do not depend on how many
    rows are converted at once. ``key`` is equal for converters that do the same.
    ``steps``: functions of numpy with their second operands, after the cast.
    """

    def __init__(
        self, x_scale: float, x_offset: float, scaler: Scaler | None, dtype: npt.DTypeLike, *, is_wide: bool = False
    ) -> None:
        self.dtype = np.dtype(dtype)
        self._is_wide = is_wide and self.dtype != np.float64
        work = np.dtype(np.float64) if is_wide else self.dtype
        steps: list[tuple[np.ufunc, Array]] = []
        if x_scale != 1.0:
            steps.append((np.multiply, np.array(x_scale, work)))
        if x_offset != 0.0:
            steps.append((np.add, np.array(x_offset, work)))
        if scaler is not None:
            steps += [(np.subtract, scaler.shift.astype(work)), (np.multiply, scaler.factor.astype(work))]
        self.steps = tuple(steps)
        scaling = None if scaler is None else (scaler.kind, scaler.shift.tobytes(), scaler.factor.tobytes())
        self.key = (x_scale, x_offset, scaling, self.dtype.name, work.name)

    @property
    def in_dtype(self) -> bool:
        """Whether the steps are taken in ``dtype``, not in a wider type."""
        return not self._is_wide

    def is_identity(self, stored: npt.DTypeLike) -> bool:
        """Return whether features stored as ``stored`` need no conversion at all."""
        return not self.steps and np.dtype(stored) == self.dtype

    def __call__(self, stored: Array, out: Array | None = None) -> Array:
        """Convert stored rows, shape (n, features), and return them in the model's dtype: in ``out``, or a new
        array."""
        if out is None:
            out = np.empty(stored.shape, self.dtype)
        if self._is_wide and self.steps:
            self._convert_wide(stored, out)
            return out
        np.copyto(out, stored)
        for step, operand in self.steps:
            step(out, operand, out)
        return out

    def _convert_wide(self, stored: Array, out: Array) -> None:
        for start in range(0, len(stored), _WIDE_ROWS):
            work = stored[start : start + _WIDE_ROWS].astype(np.float64)
            for step, operand in self.steps:
                step(work, operand, work)
            np.copyto(out[start : start + _WIDE_ROWS], work)
