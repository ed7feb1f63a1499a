"""What a model is to the rest: a layout, a start and the learner that computes it."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array, Vector
from nnlib.core.layout import Layout

LearningTask = Literal["classification", "regression"]


class BoundModel(Protocol):
    """A model tied to one flat vector of parameters, one of gradients, and scratch.

    ``x`` has shape (b, features), the model's dtype, C order, b <= max_rows. ``y`` has shape (b,): integers in
    [0, outputs) for classes (datasets are checked for it), else floating targets. Overflow shows as a loss that is not
    finite; callers choose numpy's ``errstate``.
    """

    def loss_and_gradient(self, x: Array, y: Array, row_weights: Array | None = None) -> float:
        """Compute the mean data loss over the b >= 1 rows; write its gradient (no L2 term) into the gradient vector.

        ``row_weights`` (b,) multiply each row's loss; the sum is still divided by b.
        """
        ...

    def outputs(self, x: Array) -> Array:
        """Compute probabilities (softmax, sigmoid) or values (linear), shape (b, outputs): a view, valid until the next
        call."""
        ...

    def losses(self, x: Array, y: Array) -> npt.NDArray[np.float64]:
        """Compute the loss of each row, shape (b,), in float64 from the last layer's values."""
        ...

    def score(self, x: Array, y: Array) -> tuple[Array, npt.NDArray[np.float64]]:
        """Compute `outputs` and `losses` in one forward pass."""
        ...


class Model(Protocol):
    """An architecture without numbers."""

    @property
    def layout(self) -> Layout:
        """The arrays in the model's flat vector."""
        ...

    @property
    def learner(self) -> str:
        """What computes models of this kind: ``module:name`` of a `nnlib.training.learner.LearnerFactory`."""
        ...

    def initial(self, rng: np.random.Generator) -> Array:
        """Draw a new flat vector to start from, shape (layout.size,): in float64, rounded once to the dtype."""
        ...

    def initial_buffers(self, rng: np.random.Generator) -> tuple[Vector, ...]:
        """Make the buffers to start from: a vector for each of ``layout.buffers``. ``rng`` begins where that of
        `initial` began."""
        ...

    def activation_bytes(self, rows: int) -> int:
        """Estimate the memory in bytes that training takes for a batch of ``rows`` rows, beside vectors as long as the
        layout."""
        ...

    @property
    def row_operations(self) -> float:
        """Estimate the floating-point operations (a multiplication and an addition are two) of training on one row:
        forward, gradient by weights, gradient by inputs. A prediction takes a third of them."""
        ...


class NumpyModel(Model, Protocol):
    """A model that `nnlib.training.numpy_learner` computes, in place on flat vectors of the host."""

    def bind(self, flat: Array, gradient: Array | None, max_rows: int) -> BoundModel:
        """Tie the model to ``flat`` and ``gradient`` (both (layout.size,)), used in place; None for scoring alone."""
        ...
