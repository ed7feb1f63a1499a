"""The operations on vectors that optimizers are made of: numpy's here, a device's elsewhere.

So an optimizer's formula is written once, whatever holds its vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from nnlib.core.layout import aligned_empty

Operation = Callable[..., object]


class Operations(Protocol):
    """Elementwise operations as numpy has them: on vectors, or a vector and a number, into the vector ``out``."""

    add: Operation
    subtract: Operation
    multiply: Operation
    divide: Operation
    sqrt: Operation
    maximum: Operation
    empty: Callable[[int, str], Any]
    """Makes a vector of a size and dtype, its elements anything."""


class NumpyOperations:
    """See `Operations`."""

    add: Operation = np.add
    subtract: Operation = np.subtract
    multiply: Operation = np.multiply
    divide: Operation = np.divide
    sqrt: Operation = np.sqrt
    maximum: Operation = np.maximum
    empty: Callable[[int, str], Any] = staticmethod(aligned_empty)
