"""Activations and losses that work in place on buffers made once: a training step allocates nothing large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array
from nnlib.core.layout import aligned_empty

Float64 = npt.NDArray[np.float64]


class Activation(Protocol):
    """A hidden layer's function, for one number of rows b, with that shape's scratch.

    ``z``, ``a`` and ``delta`` have shape (b, width).
    """

    def __init__(self, rows: int, width: int, dtype: str) -> None: ...

    def forward(self, z: Array) -> None:
        """Replace z by a = f(z), in place."""
        ...

    def backward(self, a: Array, delta: Array) -> None:
        """Multiply delta by f'(z), in place, with f' written in terms of a. It is a's last use, so a is scratch."""
        ...


def sigmoid(z: Array) -> None:
    """Replace z by 1 / (1 + exp(-z)), computed as (1 + tanh(z/2)) / 2, which cannot overflow."""
    np.multiply(z, 0.5, out=z)
    np.tanh(z, out=z)
    np.multiply(z, 0.5, out=z)
    np.add(z, 0.5, out=z)


class SigmoidActivation:
    """a = 1 / (1 + exp(-z)), f' = a (1 - a)."""

    def __init__(self, rows: int, width: int, dtype: str) -> None:
        """No scratch."""

    def forward(self, z: Array) -> None:
        """See `Activation.forward`."""
        sigmoid(z)

    def backward(self, a: Array, delta: Array) -> None:
        """See `Activation.backward`."""
        np.multiply(delta, a, out=delta)
        np.subtract(1.0, a, out=a)
        np.multiply(delta, a, out=delta)


class Tanh:
    """a = tanh(z), f' = 1 - a^2."""

    def __init__(self, rows: int, width: int, dtype: str) -> None:
        """No scratch."""

    def forward(self, z: Array) -> None:
        """See `Activation.forward`."""
        np.tanh(z, out=z)

    def backward(self, a: Array, delta: Array) -> None:
        """See `Activation.backward`."""
        np.multiply(a, a, out=a)
        np.subtract(1.0, a, out=a)
        np.multiply(delta, a, out=delta)


class ReLU:
    """a = max(z, 0), f' = 1 where a > 0, else 0."""

    def __init__(self, rows: int, width: int, dtype: str) -> None:
        self._zeros = np.zeros(width, dtype)  # numpy's maximum is vectorised for rows, not for a scalar: 2x
        self._positive = np.empty((rows, width), np.bool_)

    def forward(self, z: Array) -> None:
        """See `Activation.forward`."""
        np.maximum(z, self._zeros, out=z)

    def backward(self, a: Array, delta: Array) -> None:
        """See `Activation.backward`."""
        np.greater(a, 0.0, out=self._positive)
        np.multiply(delta, self._positive, out=delta)


ACTIVATIONS: dict[str, type[Activation]] = {"sigmoid": SigmoidActivation, "tanh": Tanh, "relu": ReLU}


class Loss(Protocol):
    """The last layer's function and its loss, for one number of rows b, with that shape's scratch.

    ``z`` has shape (b, outputs), C order; ``y`` (b,).
    """

    def __init__(self, rows: int, outputs: int, dtype: str) -> None: ...

    def predict(self, z: Array) -> None:
        """Replace z by the outputs, in place."""
        ...

    def train(self, z: Array, y: Array) -> Array:
        """Replace z by d loss_i / d z_i for each row i, in place. Returns the losses (b,), a view of scratch."""
        ...

    @staticmethod
    def losses(z: Float64, y: Array) -> Float64:
        """Compute the loss of each row, a new array (b,)."""
        ...


LossFactory = Callable[[int, int, str], Loss]
"""Makes a loss for a number of rows, a number of outputs and a dtype."""


class Softmax:
    """Cross-entropy of a softmax: -log p[y], by log-sum-exp with the row's maximum taken out."""

    def __init__(self, rows: int, outputs: int, dtype: str) -> None:
        self._first = np.arange(rows) * outputs
        self._index = np.empty(rows, np.intp)
        self._picked = aligned_empty(rows, dtype)
        self._column = aligned_empty(rows, dtype)

    def predict(self, z: Array) -> None:
        """See `Loss.predict`."""
        column = self._column[:, None]
        np.maximum.reduce(z, axis=1, keepdims=True, out=column)
        np.subtract(z, column, out=z)
        np.exp(z, out=z)
        np.add.reduce(z, axis=1, keepdims=True, out=column)
        np.divide(z, column, out=z)

    def train(self, z: Array, y: Array) -> Array:
        """See `Loss.train`."""
        flat, column = z.reshape(-1), self._column[:, None]
        np.add(self._first, y, out=self._index)
        np.maximum.reduce(z, axis=1, keepdims=True, out=column)
        np.subtract(z, column, out=z)
        np.take(flat, self._index, out=self._picked, mode="clip")
        np.exp(z, out=z)
        np.add.reduce(z, axis=1, keepdims=True, out=column)
        np.divide(z, column, out=z)
        flat[self._index] -= 1.0
        np.log(self._column, out=self._column)
        np.subtract(self._column, self._picked, out=self._picked)
        return self._picked

    @staticmethod
    def losses(z: Float64, y: Array) -> Float64:
        """See `Loss.losses`."""
        shifted = z - z.max(axis=1, keepdims=True)
        picked = np.take_along_axis(shifted, y[:, None].astype(np.intp), axis=1)[:, 0]
        result: Float64 = np.log(np.exp(shifted).sum(axis=1)) - picked
        return result


class Sigmoids:
    """Independent sigmoids, one class against the rest: sum over k of softplus(z_k) - [k = y] z_k."""

    def __init__(self, rows: int, outputs: int, dtype: str) -> None:
        self._first = np.arange(rows) * outputs
        self._index = np.empty(rows, np.intp)
        self._picked = aligned_empty(rows, dtype)
        self._losses = aligned_empty(rows, dtype)
        self._scratch = aligned_empty(rows * outputs, dtype).reshape(rows, outputs)
        self._positive = aligned_empty(rows * outputs, dtype).reshape(rows, outputs)

    def predict(self, z: Array) -> None:
        """See `Loss.predict`."""
        sigmoid(z)

    def train(self, z: Array, y: Array) -> Array:
        """See `Loss.train`."""
        flat, scratch = z.reshape(-1), self._scratch
        np.add(self._first, y, out=self._index)
        np.take(flat, self._index, out=self._picked, mode="clip")
        np.abs(z, out=scratch)
        np.negative(scratch, out=scratch)
        np.exp(scratch, out=scratch)
        np.log1p(scratch, out=scratch)
        np.maximum(z, 0.0, out=self._positive)
        np.add(scratch, self._positive, out=scratch)  # softplus(z) = log(1 + exp(-|z|)) + max(z, 0)
        np.add.reduce(scratch, axis=1, out=self._losses)
        sigmoid(z)
        flat[self._index] -= 1.0
        np.subtract(self._losses, self._picked, out=self._losses)
        return self._losses

    @staticmethod
    def losses(z: Float64, y: Array) -> Float64:
        """See `Loss.losses`."""
        picked = np.take_along_axis(z, y[:, None].astype(np.intp), axis=1)[:, 0]
        result: Float64 = (np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0.0)).sum(axis=1) - picked
        return result


class Linear:
    """Half the squared error of one value: (z - y)^2 / 2, so the gradient is z - y."""

    def __init__(self, rows: int, outputs: int, dtype: str) -> None:
        self._losses = aligned_empty(rows, dtype)

    def predict(self, z: Array) -> None:
        """The values are the outputs."""

    def train(self, z: Array, y: Array) -> Array:
        """See `Loss.train`."""
        error = z[:, 0]
        np.subtract(error, y, out=error, casting="same_kind")
        np.multiply(error, error, out=self._losses)
        np.multiply(self._losses, 0.5, out=self._losses)
        return self._losses

    @staticmethod
    def losses(z: Float64, y: Array) -> Float64:
        """See `Loss.losses`."""
        result: Float64 = 0.5 * np.square(z[:, 0] - y)
        return result


LOSSES: dict[str, type[Loss]] = {"softmax": Softmax, "sigmoid": Sigmoids, "linear": Linear}
