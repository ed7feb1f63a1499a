"""The slow, readable twin of `nnlib.models` and `nnlib.optim`: bare loops over plain arrays, allocating freely.

It computes the same floating-point operations in the same order as the fast code, so results are equal bit for bit
if both get: the same batches in the same order (x in C order and the model's dtype, the same number of rows a batch:
another shape may take another BLAS kernel), the same BLAS threads, and one process's numpy. ``parameters`` is a list of
(W (in, out), b (out,)), one pair per layer, in the order of the flat vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Layers = list[tuple[Array, Array]]


def unflatten(flat: Array, widths: list[int]) -> Layers:
    """Copies of the layers that lie back to back in ``flat``: W0, b0, W1, b1 ..."""
    layers, at = [], 0
    for inputs, outputs in itertools.pairwise(widths):
        weight = flat[at : at + inputs * outputs].reshape(inputs, outputs).copy()
        bias = flat[at + inputs * outputs : at + (inputs + 1) * outputs].copy()
        layers.append((weight, bias))
        at += (inputs + 1) * outputs
    return layers


def flatten(layers: Layers) -> Array:
    return np.concatenate([part.reshape(-1) for layer in layers for part in layer])


def sigmoid(z: Array) -> Array:
    return 0.5 * np.tanh(0.5 * z) + 0.5


def activate(name: str, z: Array) -> Array:
    functions: dict[str, Callable[[Array], Array]] = {
        "sigmoid": sigmoid,
        "tanh": np.tanh,
        "relu": lambda v: np.maximum(v, 0.0),
    }
    return functions[name](z)


def loss_and_gradient(
    parameters: Layers, x: Array, y: Array, activation: str, output: str, row_weights: Array | None = None
) -> tuple[float, Layers]:
    """The mean data loss over the rows and its gradient, shaped like ``parameters``."""
    rows = len(x)
    inputs = [x]  # of each layer
    for weight, bias in parameters[:-1]:
        inputs.append(activate(activation, inputs[-1] @ weight + bias))
    z = inputs[-1] @ parameters[-1][0] + parameters[-1][1]

    every = np.arange(rows)
    if output == "softmax":
        shifted = z - z.max(axis=1, keepdims=True)
        sums = np.exp(shifted).sum(axis=1)
        losses = np.log(sums) - shifted[every, y]
        delta = np.exp(shifted) / sums[:, None]
        delta[every, y] -= 1.0
    elif output == "sigmoid":
        softplus = np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0.0)
        losses = softplus.sum(axis=1) - z[every, y]
        delta = sigmoid(z)
        delta[every, y] -= 1.0
    else:
        delta = z - y[:, None].astype(z.dtype)
        losses = 0.5 * (delta[:, 0] * delta[:, 0])

    if row_weights is None:
        delta = delta * (1.0 / rows)
    else:
        losses = losses * row_weights.astype(z.dtype)
        delta = delta * (row_weights / rows).astype(z.dtype)[:, None]

    gradient: Layers = []
    for index in range(len(parameters) - 1, -1, -1):
        a = inputs[index]
        gradient.insert(0, (a.T @ delta, delta.sum(axis=0)))
        if index:
            delta = delta @ parameters[index][0].T
            if activation == "relu":
                delta = delta * (a > 0.0)
            elif activation == "tanh":
                delta = delta * (1.0 - a * a)
            else:
                delta = delta * a * (1.0 - a)
    return float(losses.sum(dtype=np.float64)) / rows, gradient


def train(
    parameters: Layers,
    batches: Iterable[tuple[Array, Array]],
    *,
    activation: str = "relu",
    output: str = "softmax",
    lr: float = 0.05,
    momentum: float = 0.0,
    decay: float = 0.0,
) -> tuple[Layers, list[float]]:
    """Plain SGD, with the heavy ball if ``momentum`` is above 0, over ``batches`` of (x, y), from zero velocity.

    ``decay`` = lambda/m: decay * W is added to the gradient of weights, not of biases. Returns the new parameters and
    each batch's loss. A round of local training that resets its optimizer is one call.
    """
    parameters = [(weight.copy(), bias.copy()) for weight, bias in parameters]
    velocity = [(np.zeros_like(weight), np.zeros_like(bias)) for weight, bias in parameters]
    losses = []
    for x, y in batches:
        loss, gradient = loss_and_gradient(parameters, x, y, activation, output)
        losses.append(loss)
        for index, ((weight, bias), (weight_slope, bias_slope)) in enumerate(zip(parameters, gradient, strict=True)):
            if decay:
                weight_slope = weight_slope + decay * weight
            weight_velocity = momentum * velocity[index][0] + weight_slope
            bias_velocity = momentum * velocity[index][1] + bias_slope
            velocity[index] = (weight_velocity, bias_velocity)
            parameters[index] = (weight - lr * weight_velocity, bias - lr * bias_velocity)
    return parameters, losses
