"""Convert stored features to the features of a model: the same for training, scoring and prediction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array
from nnlib.data.scaling import Scaler


class Converter:
    """Converts stored features to those of a model, of type ``dtype``.

    The steps are, elementwise in ``dtype`` and always in this order: cast, * x_scale, + x_offset, - scaler.shift,
    * scaler.factor; steps that change nothing are left out. Each element is rounded by itself, so the bits do not
    depend on how many rows are converted at once. ``key`` is equal for converters that do the same.
    """

    def __init__(self, x_scale: float, x_offset: float, scaler: Scaler | None, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        steps: list[tuple[np.ufunc, Array]] = []
        if x_scale != 1.0:
            steps.append((np.multiply, np.array(x_scale, self.dtype)))
        if x_offset != 0.0:
            steps.append((np.add, np.array(x_offset, self.dtype)))
        if scaler is not None:
            steps += [(np.subtract, scaler.shift.astype(self.dtype)), (np.multiply, scaler.factor.astype(self.dtype))]
        self._steps = tuple(steps)
        scaling = None if scaler is None else (scaler.kind, scaler.shift.tobytes(), scaler.factor.tobytes())
        self.key = (x_scale, x_offset, scaling, self.dtype.name)

    def is_identity(self, stored: npt.DTypeLike) -> bool:
        """Return whether features stored as ``stored`` need no conversion at all."""
        return not self._steps and np.dtype(stored) == self.dtype

    def __call__(self, stored: Array, out: Array | None = None) -> Array:
        """Convert stored rows, shape (n, features), and return them in the model's dtype: in ``out``, or a new
        array."""
        if out is None:
            out = np.empty(stored.shape, self.dtype)
        np.copyto(out, stored)
        for step, operand in self._steps:
            step(out, operand, out)
        return out
