"""A second learner, in plain Python: lists of floats, one row at a time, nothing of numpy but at the edges.

It is slow and obvious, and shares no arithmetic with `nnlib.training.numpy_learner`: an MLP of any depth with tanh,
relu or sigmoid units, a softmax and SGD with or without momentum. Sums are taken in another order than BLAS takes them,
so its numbers are numpy's up to rounding. Run as a program, this file is nnjobs with one more kind of model,
`reference`: ``python tests/helpers/reference_learner.py train experiment.yaml``.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from nnlib.config import kinds
from nnlib.config.options import MLPOptions

LINE = kinds.Kind("reference_learner:build_model", MLPOptions, "a perceptron in plain Python")
"""What registers the kind: the line that a new kind adds to `nnlib.config.kinds.MODELS`."""

Matrix = list[list[float]]


class ReferenceModel:
    """The shape of a perceptron, and its first weights, which are drawn as those of `nnlib.models.mlp`."""

    learner = "reference_learner:ReferenceLearner"

    def __init__(self, config: Any, shape: tuple[int, ...], outputs: int, loss: str) -> None:
        from nnlib.models.mlp import build

        assert loss == "softmax"
        self._drawn = build(config, shape=shape, outputs=outputs, loss=loss)
        self.layout = self._drawn.layout
        self.widths, self.activation = self._drawn.widths, config.activation

    def initial(self, rng: np.random.Generator) -> Any:
        return self._drawn.initial(rng)

    def initial_buffers(self, rng: np.random.Generator) -> Any:
        return ()

    def activation_bytes(self, rows: int) -> int:
        return 32 * rows * sum(self.widths)

    @property
    def row_operations(self) -> float:
        return self._drawn.row_operations


def build_model(config: Any, *, shape: tuple[int, ...], outputs: int, loss: str) -> ReferenceModel:
    return ReferenceModel(config, shape, outputs, loss)


class Layer:
    """Weights [in][out] and biases [out], their gradients and their velocities."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.weights, self.slopes, self.speeds = (self.zeros() for _ in range(3))

    def zeros(self) -> Matrix:
        """One row for each input, and a last one: the biases."""
        return [[0.0] * self.outputs for _ in range(self.inputs + 1)]

    def apply(self, row: list[float]) -> list[float]:
        return [
            math.fsum(value * self.weights[i][j] for i, value in enumerate([*row, 1.0])) for j in range(self.outputs)
        ]


class ReferenceLearner:
    """See `nnlib.training.learner.GradientLearner`."""

    trains_whole_rounds = False
    averages_gradients = True

    def __init__(self, model: ReferenceModel, setup: Any) -> None:
        self.model, self.setup = model, setup
        self.layers = [Layer(*pair) for pair in zip(model.widths, model.widths[1:], strict=False)]

    def prepare(self) -> None:
        """There is nothing to import."""

    def load(self, state: Any) -> None:
        numbers = iter(state.vector.tolist())
        for layer in self.layers:
            layer.weights = [[next(numbers) for _ in row] for row in layer.weights]
        rest = list(numbers)  # velocities, where they are averaged
        velocities = iter(rest if rest else [0.0] * self.model.layout.size)
        for layer in self.layers:
            layer.speeds = [[next(velocities) for _ in row] for row in layer.speeds]

    def state(self) -> Any:
        from nnlib.core.layout import ModelState

        numbers = self._flat("weights")
        if self.setup.layout.size > len(numbers):
            numbers += self._flat("speeds")
        return ModelState(np.array(numbers, np.float64))

    def _flat(self, name: str) -> list[float]:
        return [number for layer in self.layers for row in getattr(layer, name) for number in row]

    def train(self, batches: Any, epochs: range) -> Any:
        from nnlib.optim import learning_rate
        from nnlib.training.learner import Trained

        (epoch,) = epochs
        total = 0.0
        for step, batch in enumerate(batches.epoch(epoch)):
            loss, _ = self.gradient(batch, epoch, step)
            total += loss * len(batch.y)
            self._step(learning_rate(self.setup.config.train, epoch))
        return Trained(total / batches.rows)

    def gradient(self, batch: Any, epoch: int, step: int) -> Any:
        for layer in self.layers:
            layer.slopes = layer.zeros()
        losses = []
        for row, label in zip(batch.x.tolist(), batch.y.tolist(), strict=True):
            weights = self.setup.trial.class_weights
            losses.append(self._backward(row, label, 1.0 if weights is None else weights[label], len(batch.y)))
        return math.fsum(losses) / len(losses), np.array(self._flat("slopes"), np.float64)

    def apply(self, mean: Any, lr: float) -> None:
        numbers = iter(mean.tolist())
        for layer in self.layers:
            layer.slopes = [[next(numbers) for _ in row] for row in layer.slopes]
        self._step(lr)

    def _step(self, lr: float) -> None:
        """v = mu v + g + decay w; w -= lr v; biases do not decay."""
        momentum, decay = getattr(self.setup.config.train, "momentum", 0.0), self.setup.decay
        for layer in self.layers:
            for i in range(layer.inputs + 1):
                for j in range(layer.outputs):
                    slope = layer.slopes[i][j] + (decay * layer.weights[i][j] if i < layer.inputs else 0.0)
                    layer.speeds[i][j] = momentum * layer.speeds[i][j] + slope
                    layer.weights[i][j] -= lr * layer.speeds[i][j]

    def _forward(self, row: list[float]) -> list[list[float]]:
        """The inputs of each layer, then the outputs before the softmax."""
        values = [row]
        for layer in self.layers[:-1]:
            values.append([self._activate(z) for z in layer.apply(values[-1])])
        return [*values, self.layers[-1].apply(values[-1])]

    def _activate(self, z: float) -> float:
        if self.model.activation == "relu":
            return max(z, 0.0)
        return math.tanh(z) if self.model.activation == "tanh" else 1.0 / (1.0 + math.exp(-z))

    def _slope(self, a: float) -> float:
        """The slope of an activation, from its value."""
        if self.model.activation == "relu":
            return 1.0 if a > 0.0 else 0.0
        return 1.0 - a * a if self.model.activation == "tanh" else a * (1.0 - a)

    def _backward(self, row: list[float], label: int, weight: float, rows: int) -> float:
        """Add a row's part of the mean gradient to the slopes; the row's weighted loss."""
        *inputs, z = self._forward(row)
        delta = [(p - (1.0 if j == label else 0.0)) * weight / rows for j, p in enumerate(softmax(z))]
        for layer, values in zip(reversed(self.layers), reversed(inputs), strict=True):
            for i, value in enumerate([*values, 1.0]):
                for j, each in enumerate(delta):
                    layer.slopes[i][j] += value * each
            back = [math.fsum(w * d for w, d in zip(layer.weights[i], delta, strict=True)) for i in range(layer.inputs)]
            delta = [each * self._slope(a) for each, a in zip(back, values, strict=True)]
        return weight * loss(z, label)

    def score(self, batch: Any, score: Any) -> None:
        score.add(*self.outputs_and_losses(batch.x, batch.y), batch.y)

    def outputs(self, x: Any) -> Any:
        return np.array([softmax(self._forward(row)[-1]) for row in x.tolist()], np.float64)

    def outputs_and_losses(self, x: Any, y: Any) -> Any:
        losses = [loss(self._forward(row)[-1], label) for row, label in zip(x.tolist(), y.tolist(), strict=True)]
        return self.outputs(x), np.array(losses, np.float64)


def softmax(z: list[float]) -> list[float]:
    powers = [math.exp(value - max(z)) for value in z]
    return [power / math.fsum(powers) for power in powers]


def loss(z: list[float], label: int) -> float:
    return math.log(math.fsum(math.exp(value - max(z)) for value in z)) + max(z) - z[label]


if __name__ == "__main__":
    kinds.MODELS._kinds["reference"] = LINE  # before the schema is made from the table
    from jobs.__main__ import main

    sys.exit(main(sys.argv[1:]))
