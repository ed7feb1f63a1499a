"""What a model is to the rest: a layout, a start and the learner that computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array, FloatArray, IntArray, Vector
from nnlib.core.layout import Layout, ModelState
from nnlib.models.functions import LossFactory

LearningTask = Literal["classification", "regression", "language"]


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


class PartedModel(Model, Protocol):
    """A model of a kind that has parts: see `nnlib.models.parts`."""

    def initial_frozen(self, rng: np.random.Generator) -> dict[str, Array]:
        """Make the parameters that are not trained, by name; {} if there are none. ``rng`` begins where that of
        `initial` began."""
        ...


class NumpyModel(Model, Protocol):
    """A model that `nnlib.training.numpy_learner` computes, in place on flat vectors of the host."""

    @property
    def loss(self) -> str:
        """The loss of its outputs: a key of `nnlib.models.functions.LOSSES`."""
        ...

    def bind(
        self, flat: Array, gradient: Array | None, max_rows: int, training_loss: LossFactory | None = None
    ) -> BoundModel:
        """Tie the model to ``flat`` and ``gradient`` (both (layout.size,)), used in place; None for scoring alone.

        ``training_loss``: what `BoundModel.loss_and_gradient` computes, where that is not the plain loss.
        """
        ...


class SubnetModel(NamedTuple):
    """A net made of some units of another one, which is the whole.

    ``model`` is the sub-net's own. ``positions``, shape (model.layout.size,): where each of its numbers lies in the
    flat vector of the whole. ``factor``, the same shape, float64: for a weight of a hidden unit's output, how many
    times as many units the whole has in that layer; 1 for all other numbers.
    """

    model: Model
    positions: IntArray
    factor: FloatArray


class DivisibleModel(Model, Protocol):
    """A model whose hidden layers can be cut into groups of units."""

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """The units of each hidden layer (channels of a convolution), from the inputs to the outputs."""
        ...

    def subnet(self, units: Sequence[IntArray]) -> SubnetModel:
        """Return the net of these units of each hidden layer, ascending and at least one, with all inputs and
        outputs."""
        ...

    def connections(self, vector: Vector) -> list[Array]:
        """Return the absolute weights between layers: of inputs to the first hidden layer, between hidden layers, to
        the outputs, each of shape (units below, units above). Weights of a channel are added up."""
        ...

    def activations(self, state: ModelState, x: Array) -> list[Array]:
        """Return what each hidden layer makes of rows ``x`` (b, features), shape (b, units); of a channel the mean
        over its positions."""
        ...
