"""Activations and losses alone: known values, and no overflow however large the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnlib.models.functions import ACTIVATIONS, LOSSES, sigmoid

Z = np.array([[-2.0, -0.5, 0.0, 0.5, 2.0]])
KNOWN: dict[str, Callable[[float], float]] = {
    "sigmoid": lambda v: 1.0 / (1.0 + math.exp(-v)),
    "tanh": math.tanh,
    "relu": lambda v: max(v, 0.0),
}
SLOPES: dict[str, Callable[[float], float]] = {
    "sigmoid": lambda a: a * (1.0 - a),
    "tanh": lambda a: 1.0 - a * a,
    "relu": lambda a: 1.0 if a > 0 else 0.0,
}


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activation_and_slope(name: str) -> None:
    function: Any = ACTIVATIONS[name](1, 5, "float64")
    a = Z.copy()
    function.forward(a)
    np.testing.assert_allclose(a[0], [KNOWN[name](v) for v in Z[0]], rtol=1e-15, atol=1e-16)
    delta = np.full_like(a, 3.0)
    slopes = [3.0 * SLOPES[name](v) for v in a[0]]
    function.backward(a, delta)
    np.testing.assert_allclose(delta[0], slopes, rtol=1e-15)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activation_shows_not_a_number(name: str) -> None:
    a = np.array([[np.nan, 1.0]])
    ACTIVATIONS[name](1, 2, "float64").forward(a)
    assert np.isnan(a[0, 0]) and np.isfinite(a[0, 1])


def test_sigmoid_saturates_without_a_warning() -> None:
    z = np.array([-1e4, -100.0, 0.0, 100.0, 1e4], np.float32)
    with np.errstate(all="raise", under="ignore"):
        sigmoid(z)
    assert z.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_softmax_hand_worked() -> None:
    """z = (0, ln 2, ln 5): p = (1, 2, 5) / 8; y = 1: loss = ln 4, delta = (1, -6, 5) / 8."""
    z = np.log(np.array([[1.0, 2.0, 5.0]]))
    softmax = LOSSES["softmax"](1, 3, "float64")
    y = np.array([1])
    np.testing.assert_allclose(softmax.losses(z, y), [math.log(4.0)], rtol=1e-15)
    losses = softmax.train(z, y)
    np.testing.assert_allclose(losses, [math.log(4.0)], rtol=1e-15)
    np.testing.assert_allclose(z, [[1 / 8, -6 / 8, 5 / 8]], rtol=1e-15)


def test_sigmoids_hand_worked() -> None:
    """z = (0, ln 3), y = 1: s = (1/2, 3/4); loss = -ln(1 - 1/2) - ln(3/4) = ln(8/3); delta = (1/2, -1/4)."""
    z = np.array([[0.0, math.log(3.0)]])
    loss = LOSSES["sigmoid"](1, 2, "float64")
    y = np.array([1])
    np.testing.assert_allclose(loss.losses(z, y), [math.log(8 / 3)], rtol=1e-15)
    np.testing.assert_allclose(loss.train(z, y), [math.log(8 / 3)], rtol=1e-15)
    np.testing.assert_allclose(z, [[0.5, -0.25]], rtol=1e-15)


def test_linear_hand_worked() -> None:
    """z = 3, y = 1: loss = (3 - 1)^2 / 2 = 2, delta = 2."""
    z = np.array([[3.0]])
    linear = LOSSES["linear"](1, 1, "float64")
    assert linear.losses(z, np.array([1.0])).tolist() == [2.0]
    assert linear.train(z, np.array([1.0])).tolist() == [2.0]
    assert z.tolist() == [[2.0]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_huge_values_give_finite_losses(name: str, dtype: str) -> None:
    """The right class 2e4 below the other costs 2e4, not infinity; the other row costs nothing."""
    z = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    y = np.array([1, 1])
    expected = [2e4, 0.0]
    loss = LOSSES[name](2, 2, dtype)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(loss.losses(z.astype(np.float64), y), expected, atol=1e-12)
        trained = z.copy()
        np.testing.assert_allclose(loss.train(trained, y), expected, atol=1e-3)
        np.testing.assert_allclose(trained, [[1.0, -1.0], [0.0, 0.0]], atol=1e-6)
        loss.predict(z)
    np.testing.assert_allclose(z, [[1.0, 0.0], [0.0, 1.0]])
