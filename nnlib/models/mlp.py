"""The multilayer perceptron: dense layers over preallocated buffers, parameters and gradients as views of flat vectors.

A layer computes a = f(x W + b) with x (b, in), W (in, out), b (out,); no hidden layer is linear or softmax regression.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnlib.config.options import MLPOptions
from nnlib.config.schema import Model as ModelConfig
from nnlib.config.section import options_of
from nnlib.core.arrays import Array, IntArray, Vector
from nnlib.core.entries import Entry, parameter
from nnlib.core.layout import Layout, ModelState, aligned_empty
from nnlib.models.functions import ACTIVATIONS, LOSSES, LossFactory
from nnlib.models.init import INITIALISERS
from nnlib.models.protocol import SubnetModel


class MLP:
    """Widths, activation, loss and initialisation; holds no numbers."""

    learner = "nnlib.training.numpy_learner:build"

    def __init__(self, widths: Sequence[int], *, activation: str, loss: str, init: str, dtype: str) -> None:
        """``widths``: features, each hidden layer, outputs. The names are keys of the tables in `nnlib.models`."""
        arrays: list[Entry] = []
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            arrays.append(parameter(f"layer{index}.weight", (inputs, outputs), decays=True))
            arrays.append(parameter(f"layer{index}.bias", (outputs,), decays=False))
        self.layout = Layout.build(arrays, dtype)
        self._entries = {entry.name: entry for entry in self.layout.entries}
        self.widths = tuple(widths)
        self.loss = loss
        self.activation = activation
        self._init = init
        self._initialiser = INITIALISERS[init]

    def initial(self, rng: np.random.Generator) -> Array:
        """See `nnlib.models.protocol.Model.initial`."""
        flat = aligned_empty(self.layout.size, self.layout.dtype)
        for entry in self.layout.entries:
            flat[entry.range] = self._initialiser(rng, entry).reshape(-1)
        return flat

    def initial_buffers(self, rng: np.random.Generator) -> tuple[Vector, ...]:
        """See `nnlib.models.protocol.Model.initial_buffers`: a perceptron has none."""
        return ()

    def activation_bytes(self, rows: int) -> int:
        """See `nnlib.models.protocol.Model.activation_bytes`: three float64 values for each unit but the outputs."""
        return 8 * 3 * rows * sum(self.widths[:-1])

    @property
    def row_operations(self) -> float:
        """See `nnlib.models.protocol.Model.row_operations`: each parameter takes part in three products of a row."""
        return 6.0 * self.layout.size

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """See `nnlib.models.protocol.DivisibleModel.hidden_widths`."""
        return self.widths[1:-1]

    def subnet(self, units: Sequence[IntArray]) -> SubnetModel:
        """See `nnlib.models.protocol.DivisibleModel.subnet`."""
        layers = [np.arange(self.widths[0]), *units, np.arange(self.widths[-1])]
        widths = [len(layer) for layer in layers]
        model = MLP(widths, activation=self.activation, loss=self.loss, init=self._init, dtype=self.layout.dtype)
        index, factor = [], []
        for number, (below, above) in enumerate(itertools.pairwise(layers)):
            for name, chosen in (("weight", np.ix_(below, above)), ("bias", (above,))):
                entry = self._entries[f"layer{number}.{name}"]
                positions = np.arange(entry.offset, entry.offset + entry.size).reshape(entry.shape)
                index.append(positions[chosen].reshape(-1))
                more = self.widths[number] / len(below) if number and name == "weight" else 1.0
                factor.append(np.full(index[-1].shape, more))
        return SubnetModel(model, np.concatenate(index).astype(np.int64), np.concatenate(factor))

    def connections(self, vector: Vector) -> list[Array]:
        """See `nnlib.models.protocol.DivisibleModel.connections`."""
        views = self.layout.views(vector)
        return [np.abs(views[f"layer{number}.weight"]) for number in range(len(self.widths) - 1)]

    def activations(self, state: ModelState, x: Array) -> list[Array]:
        """See `nnlib.models.protocol.DivisibleModel.activations`."""
        return self.bind(state.vector, None, len(x)).hidden(x)

    def bind(
        self, flat: Array, gradient: Array | None, max_rows: int, training_loss: LossFactory | None = None
    ) -> BoundMLP:
        """See `nnlib.models.protocol.NumpyModel.bind`."""
        return BoundMLP(self, flat, gradient, max_rows, training_loss or LOSSES[self.loss])


def build(config: ModelConfig, *, shape: tuple[int, ...], outputs: int, loss: str) -> MLP:
    """Build the model of ``model.kind: mlp``."""
    options = options_of(config, MLPOptions)
    widths = [math.prod(shape), *options.hidden, outputs]
    return MLP(widths, activation=options.activation, loss=loss, init=options.init, dtype=config.dtype)


class _Pass:
    """The buffers cut to one number of rows: cut once, for cutting costs as much as a small layer's arithmetic."""

    def __init__(self, model: MLP, loss: LossFactory, buffers: list[Array], deltas: list[Array], rows: int) -> None:
        dtype = model.layout.dtype
        self.layers = [buffer[:rows] for buffer in buffers]
        self.transposed = [layer.T for layer in self.layers]
        self.deltas = [buffer[:rows] for buffer in deltas]
        self.activations = [ACTIVATIONS[model.activation](rows, width, dtype) for width in model.widths[1:-1]]
        self.loss = loss(rows, model.widths[-1], dtype)


class BoundMLP:
    """An `MLP` on its numbers. See `nnlib.models.protocol.BoundModel`."""

    def __init__(self, model: MLP, flat: Array, gradient: Array | None, max_rows: int, loss: LossFactory) -> None:
        layout, depth = model.layout, len(model.widths) - 1
        values = layout.views(flat)
        self.weights = [values[f"layer{index}.weight"] for index in range(depth)]
        self.biases = [values[f"layer{index}.bias"] for index in range(depth)]
        slopes = {} if gradient is None else layout.views(gradient)
        self._weight_slopes = [slopes[f"layer{index}.weight"] for index in range(depth)] if slopes else []
        self._bias_slopes = [slopes[f"layer{index}.bias"] for index in range(depth)] if slopes else []
        self._model, self._loss = model, loss
        self._max_rows = max_rows
        self._buffers = [self._buffer(width, layout) for width in model.widths[1:]]
        self._deltas = [self._buffer(width, layout) for width in model.widths[1:-1]] if slopes else []
        self._passes: dict[int, _Pass] = {}

    def _buffer(self, width: int, layout: Layout) -> Array:
        return aligned_empty(self._max_rows * width, layout.dtype).reshape(self._max_rows, width)

    def _pass(self, rows: int) -> _Pass:
        work = self._passes.get(rows)
        if work is None:
            if rows > self._max_rows:
                raise ValueError(f"{rows} rows, but the model is bound for at most {self._max_rows}")
            work = self._passes[rows] = _Pass(self._model, self._loss, self._buffers, self._deltas, rows)
        return work

    def _forward(self, x: Array, work: _Pass) -> Array:
        """Fill the layers; returns the last layer's z, before its loss's function."""
        last = len(self.weights) - 1
        a = x
        for index, z in enumerate(work.layers):
            np.matmul(a, self.weights[index], out=z)
            np.add(z, self.biases[index], out=z)
            if index < last:
                work.activations[index].forward(z)
            a = z
        return a

    def loss_and_gradient(self, x: Array, y: Array, row_weights: Array | None = None) -> float:
        """Go forward, then back: dW = a^T delta, db = sum over rows of delta, delta_below = delta W^T * f'."""
        if not self._weight_slopes:
            raise ValueError("bound without a gradient vector: this model can only score")
        rows = len(x)
        work = self._pass(rows)
        delta = self._forward(x, work)
        losses = work.loss.train(delta, y)
        if row_weights is None:
            np.multiply(delta, 1.0 / rows, out=delta)
        else:
            np.multiply(losses, row_weights, out=losses)
            np.multiply(delta, (row_weights / rows).astype(delta.dtype)[:, None], out=delta)
        for index in range(len(self.weights) - 1, 0, -1):
            np.matmul(work.transposed[index - 1], delta, out=self._weight_slopes[index])
            np.add.reduce(delta, axis=0, out=self._bias_slopes[index])
            below = work.deltas[index - 1]
            np.matmul(delta, self.weights[index].T, out=below)
            work.activations[index - 1].backward(work.layers[index - 1], below)
            delta = below
        np.matmul(x.T, delta, out=self._weight_slopes[0])
        np.add.reduce(delta, axis=0, out=self._bias_slopes[0])
        return float(np.add.reduce(losses, dtype=np.float64)) / rows

    def hidden(self, x: Array) -> list[Array]:
        """Return copies of what the hidden layers make of rows ``x`` (b, features), shape (b, units) each."""
        work = self._pass(len(x))
        self._forward(x, work)
        return [layer.copy() for layer in work.layers[:-1]]

    def outputs(self, x: Array) -> Array:
        """See `nnlib.models.protocol.BoundModel.outputs`."""
        work = self._pass(len(x))
        z = self._forward(x, work)
        work.loss.predict(z)
        return z

    def losses(self, x: Array, y: Array) -> npt.NDArray[np.float64]:
        """See `nnlib.models.protocol.BoundModel.losses`."""
        work = self._pass(len(x))
        return work.loss.losses(self._forward(x, work).astype(np.float64), y)

    def score(self, x: Array, y: Array) -> tuple[Array, npt.NDArray[np.float64]]:
        """See `nnlib.models.protocol.BoundModel.score`."""
        work = self._pass(len(x))
        z = self._forward(x, work)
        losses = work.loss.losses(z.astype(np.float64), y)
        work.loss.predict(z)
        return z, losses
