"""Initial weights and biases, always drawn in float64: float32 and float64 models start from the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nnlib.core.entries import Entry

Float64 = npt.NDArray[np.float64]
Initialiser = Callable[[np.random.Generator, Entry], Float64]

NORMAL_SD = 0.05


def _he(rng: np.random.Generator, entry: Entry) -> Float64:
    """N(0, 2 / fan_in), biases 0 (He et al. 2015, equation 10)."""
    if not entry.decays:
        return np.zeros(entry.shape)
    return rng.normal(0.0, math.sqrt(2.0 / entry.shape[0]), entry.shape)


def _xavier(rng: np.random.Generator, entry: Entry) -> Float64:
    """U(-r, r) with r = sqrt(6 / (fan_in + fan_out)), biases 0 (Glorot and Bengio 2010, equation 16)."""
    if not entry.decays:
        return np.zeros(entry.shape)
    limit = math.sqrt(6.0 / sum(entry.shape))
    return rng.uniform(-limit, limit, entry.shape)


def _normal(rng: np.random.Generator, entry: Entry) -> Float64:
    """N(0, 0.05^2) whatever the width, biases 0."""
    return rng.normal(0.0, NORMAL_SD, entry.shape) if entry.decays else np.zeros(entry.shape)


def _uniform01(rng: np.random.Generator, entry: Entry) -> Float64:
    """U[0, 1) for weights and biases alike (the paper's)."""
    return rng.random(entry.shape)


INITIALISERS: dict[str, Initialiser] = {"he": _he, "xavier": _xavier, "normal": _normal, "uniform01": _uniform01}
"""Name -> draws one entry (weight: (fan_in, fan_out); bias: (fan_out,))."""
