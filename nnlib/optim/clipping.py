"""Gradients of limited length (Pascanu, Mikolov and Bengio 2013), as PyTorch limits them."""

from __future__ import annotations

import math

import numpy as np

from nnlib.core.arrays import Vector
from nnlib.core.exact_sum import exact_sum
from nnlib.core.layout import blocks

TINY = 1e-6
"""Added to a norm that is divided by."""


def norm(vector: Vector) -> float:
    """Compute the Euclidean norm of a vector of any length: squares summed in float64 by the fixed blocks of a layout,
    so that nothing else can change a bit. Not finite where an element, or the sum of squares, is not."""
    squares = (np.square(vector[part], dtype=np.float64) for part in blocks(vector.size))
    return math.sqrt(exact_sum([float(np.add.reduce(part)) for part in squares]))


def clip_norm(gradient: Vector, largest: float) -> None:
    """Scale a gradient, in place, by ``largest`` / (its norm + 1e-6) where that is less than 1: the formula of
    `torch.nn.utils.clip_grad_norm_`. One that is not finite does not become finite."""
    factor = largest / (norm(gradient) + TINY)
    if factor < 1.0:
        np.multiply(gradient, factor, out=gradient)
