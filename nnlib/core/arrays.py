"""Names for the numpy arrays that signatures speak of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
"""An array of any shape and dtype; the docstring that uses the name states them."""
Vector = npt.NDArray[Any]
"""A flat vector, shape (size,): weights or gradients in the order of a `nnlib.core.layout.Layout`."""
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Buffer = bytes | bytearray | memoryview | npt.NDArray[Any]
"""Bytes as messages take them, without a copy."""
