"""The outer step: what turns the workers' average into the next model.

The outer gradient is delta = model - average. A step of rate 1 without momentum is the average itself, bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from nnlib.config.options import OuterMomentumOptions
from nnlib.config.schema import Outer
from nnlib.core.arrays import Array

Float64 = npt.NDArray[np.float64]


class OuterStep(ABC):
    """A pure function of (model, average, state); computed in float64, rounded once to the model's dtype."""

    def __init__(self, config: Outer, size: int) -> None:
        """``config`` has the options of the kind; ``size``: parameters of the model."""
        self._lr = config.lr
        self._momentum = config.momentum if isinstance(config, OuterMomentumOptions) else 0.0
        self.state_size = size if self._momentum > 0.0 else 0

    def initial(self) -> Float64:
        """Return the state before the first round: zeros, shape (state_size,)."""
        return np.zeros(self.state_size)

    def apply(self, model: Array, average: Array, state: Float64) -> tuple[Array, Float64]:
        """Return the next model (size,) and state; nothing that was passed in is changed."""
        if self._lr == 1.0 and self._momentum == 0.0:
            return average, state
        delta = model.astype(np.float64) - average.astype(np.float64)
        direction, state = self._direction(delta, state)
        return (model.astype(np.float64) - self._lr * direction).astype(model.dtype), state

    @abstractmethod
    def _direction(self, delta: Float64, state: Float64) -> tuple[Float64, Float64]:
        """What is subtracted, times lr, from the model; and the new state."""


class Mean(OuterStep):
    """Part of the way (lr), or beyond, from the model to the average; no momentum."""

    def _direction(self, delta: Float64, state: Float64) -> tuple[Float64, Float64]:
        return delta, state


class ServerMomentum(OuterStep):
    """FedAvgM (Hsu et al. 2019, section 4.2): v = mu v + delta; w -= lr v."""

    def _direction(self, delta: Float64, state: Float64) -> tuple[Float64, Float64]:
        if self._momentum == 0.0:
            return delta, state
        velocity = self._momentum * state + delta
        return velocity, velocity


class OuterNesterov(OuterStep):
    """The outer step of DiLoCo (Douillard et al. 2023): v = mu v + delta; w -= lr (delta + mu v)."""

    def _direction(self, delta: Float64, state: Float64) -> tuple[Float64, Float64]:
        if self._momentum == 0.0:
            return delta, state
        velocity = self._momentum * state + delta
        return delta + self._momentum * velocity, velocity
