"""How strongly hidden units belong together: by the weights between them, or by what they do on data.

An affinity is a symmetric matrix over all hidden units, layer after layer, shape (units, units), float64, with zeros on
its diagonal. A partition is the better, in the sense of "structural splitting", the less affinity joins its groups.
"""

from __future__ import annotations

import numpy as np

from nnlib.core.arrays import Array, FloatArray
from nnlib.core.layout import ModelState
from nnlib.models.protocol import DivisibleModel


def weight_affinity(model: DivisibleModel, state: ModelState) -> FloatArray:
    """Return the absolute weights between hidden units. In a net of one hidden layer, which has none, two units belong
    together as far as they feed the same outputs: the inner product of their absolute weights there."""
    inner = [np.asarray(each, np.float64) for each in model.connections(state.vector)]
    ends = np.cumsum([0, *model.hidden_widths])
    affinity = np.zeros((ends[-1], ends[-1]))
    if len(model.hidden_widths) == 1:
        affinity[:] = inner[-1] @ inner[-1].T
        np.fill_diagonal(affinity, 0.0)
    for layer, weights in enumerate(inner[1:-1]):
        below, above = slice(ends[layer], ends[layer + 1]), slice(ends[layer + 1], ends[layer + 2])
        affinity[below, above] = weights
        affinity[above, below] = weights.T
    return affinity


def activation_affinity(model: DivisibleModel, state: ModelState, x: Array) -> FloatArray:
    """Return the absolute covariances of the hidden units' activations on rows ``x`` (b, features), each scaled to
    variance 1: their absolute correlations. A unit that is constant has none."""
    values = np.concatenate(model.activations(state, x), axis=1).astype(np.float64)
    values -= values.mean(axis=0)
    spread = np.sqrt(np.square(values).mean(axis=0))
    alive = spread > 1e-12 * max(float(spread.max(initial=0.0)), 1e-300)
    values = np.divide(values, spread, out=np.zeros_like(values), where=alive)
    affinity: FloatArray = np.abs(values.T @ values / len(values))
    np.fill_diagonal(affinity, 0.0)
    return affinity
