"""The two kinds of local optimizer: one takes a step per mini-batch, the other minimises over all its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array
from nnlib.core.entries import Entry

Float64 = npt.NDArray[np.float64]
Objective = Callable[[Float64], tuple[float, Float64]]
"""The objective at a point (size,): its value and its gradient (size,), which may be the same buffer at every call."""


class StepOptimizer(Protocol):
    """Steps down a mini-batch's gradient. All its memory is one flat vector, so it can be averaged like weights."""

    minimizes: ClassVar[Literal[False]] = False
    """Whether this is an optimizer of the other kind."""

    @property
    def state_arrays(self) -> Sequence[Entry]:
        """The arrays in ``state``, in order, as `nnlib.core.layout.Layout.extended` takes them."""
        ...

    @property
    def state(self) -> Array:
        """The state in place, flat, in the layout's dtype: write into it to restore an averaged one."""
        ...

    def reset(self) -> None:
        """Set the state to that before the first step."""
        ...

    def step(self, flat: Array, gradient: Array, lr: float, decay: float) -> None:
        """Move ``flat`` in place. ``gradient`` is used as scratch: its values are lost.

        ``decay`` = lambda/m is the coefficient of the L2 term's gradient: decay * w is added for the arrays that
        `train.decay` names.
        """
        ...


class Minimum(NamedTuple):
    """What a batch optimizer reached."""

    point: Float64
    loss: float
    evaluations: int
    """Calls of the objective."""
    message: str
    """Why it stopped, in scipy's words. A line search that finds no better point is no error."""


class BatchOptimizer(Protocol):
    """Minimises an objective; one iteration counts as one epoch. Starts afresh at every call."""

    minimizes: ClassVar[Literal[True]] = True

    def minimize(self, objective: Objective, start: Float64, iterations: int) -> Minimum:
        """Make at most ``iterations`` iterations from ``start``, shape (size,), which is not changed."""
        ...
