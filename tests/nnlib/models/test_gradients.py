"""The gradient against hand-worked numbers, finite differences and torch; `test_mlp` has the readable reference."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from nnlib.config.training import model_section, train_section
from nnlib.core.layout import Layout
from nnlib.models import BoundModel, build_model
from nnlib.models.mlp import MLP
from nnlib.optim import build_optimizer

ACTIVATIONS = ("sigmoid", "tanh", "relu")
OUTPUTS = ("softmax", "sigmoid", "linear")
DEPTHS: tuple[list[int], ...] = ([], [5], [5, 4], [4, 3, 5])
FEATURES, ROWS = 4, 6
CASES = list(itertools.product(DEPTHS, ACTIVATIONS, OUTPUTS))


class Case:
    """One architecture in float64 on random numbers, kept away from the kink of the ReLU."""

    def __init__(self, hidden: list[int], activation: Any, output: Any) -> None:
        self.outputs = 1 if output == "linear" else 3
        self.widths = [FEATURES, *hidden, self.outputs]
        keys: Any = {"hidden": hidden, "activation": activation, "output": output, "init": "xavier"}
        config = model_section(**keys, dtype="float64")
        task: Any = "regression" if output == "linear" else "classification"
        model = build_model(config, shape=(FEATURES,), outputs=self.outputs, task=task)
        assert isinstance(model, MLP)
        rng = np.random.default_rng(11)
        self.layout: Layout = model.layout
        self.flat = model.initial(rng) + 0.2 * rng.normal(size=model.layout.size)
        self.gradient = np.empty_like(self.flat)
        self.bound: BoundModel = model.bind(self.flat, self.gradient, ROWS)
        self.x = rng.normal(size=(ROWS, FEATURES))
        self.y = rng.normal(size=ROWS) if output == "linear" else rng.integers(0, self.outputs, ROWS)
        self.row_weights = rng.uniform(0.2, 3.0, ROWS)


def l2(layout: Layout, flat: np.ndarray, decay: float) -> float:
    """decay/2 * sum of squared weights, biases excluded: the L2 term for decay = lambda/m."""
    return 0.5 * decay * sum(math.fsum(np.square(flat[part])) for part in layout.weight_ranges())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("hidden", "activation", "output"), CASES)
def test_finite_differences(hidden: list[int], activation: str, output: str, weighted: bool) -> None:
    """Central differences of the mean loss, every component."""
    case = Case(hidden, activation, output)
    weights = case.row_weights if weighted else None
    loss = case.bound.loss_and_gradient(case.x, case.y, weights)
    gradient = case.gradient.copy()
    scored = case.bound.losses(case.x, case.y)
    assert loss == pytest.approx(float((scored * (1.0 if weights is None else weights)).mean()), rel=1e-12)
    step = 1e-6
    differences = np.empty_like(gradient)
    for index, value in enumerate(case.flat.copy()):
        case.flat[index] = value + step
        above = case.bound.loss_and_gradient(case.x, case.y, weights)
        case.flat[index] = value - step
        below = case.bound.loss_and_gradient(case.x, case.y, weights)
        case.flat[index] = value
        differences[index] = (above - below) / (2 * step)
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=2e-9)


@pytest.mark.parametrize("hidden", DEPTHS)
def test_finite_differences_of_the_l2_term(hidden: list[int]) -> None:
    """An SGD step of rate 1 subtracts the gradient of the whole objective, the L2 term included."""
    case, decay, step = Case(hidden, "tanh", "softmax"), 0.3, 1e-6
    differences = np.empty_like(case.flat)
    for index, value in enumerate(case.flat.copy()):
        values = []
        for moved in (value + step, value - step):
            case.flat[index] = moved
            data = case.bound.loss_and_gradient(case.x, case.y)
            values.append(data + l2(case.layout, case.flat, decay))
        case.flat[index] = value
        differences[index] = (values[0] - values[1]) / (2 * step)
    case.bound.loss_and_gradient(case.x, case.y)
    before = case.flat.copy()
    optimizer = build_optimizer(train_section(optimizer="sgd"), case.layout)
    assert not optimizer.minimizes
    optimizer.step(case.flat, case.gradient, 1.0, decay)
    np.testing.assert_allclose(before - case.flat, differences, rtol=1e-6, atol=2e-9)


def test_hand_worked_two_two_two() -> None:
    """A 2-2-2 net of ReLU and softmax on one row.

    x = (1, 2), W0 = [[1, -1], [1, 0]], b0 = (0, -1): z0 = (1 + 2 + 0, -1 + 0 - 1) = (3, -2), a = (3, 0).
    W1 = [[1/3, 0], [5, 7]], b1 = (ln 3 - 1, 0):     z1 = (3/3 + 0 + ln 3 - 1, 0) = (ln 3, 0), p = (3/4, 1/4).
    y = 1: loss = -ln(1/4) = ln 4; delta1 = p - (0, 1) = (3/4, -3/4).
    dW1 = a^T delta1 = [[9/4, -9/4], [0, 0]], db1 = (3/4, -3/4).
    delta1 W1^T = (3/4 * 1/3 + 0, 3/4 * 5 - 3/4 * 7) = (1/4, -3/2); the second unit is off: delta0 = (1/4, 0).
    dW0 = x^T delta0 = [[1/4, 0], [1/2, 0]], db0 = (1/4, 0).
    """
    config = model_section(hidden=[2], activation="relu", dtype="float64")
    model = build_model(config, shape=(2,), outputs=2, task="classification")
    assert isinstance(model, MLP)
    flat = np.array([1.0, -1.0, 1.0, 0.0, 0.0, -1.0, 1 / 3, 0.0, 5.0, 7.0, math.log(3.0) - 1.0, 0.0])
    gradient = np.empty_like(flat)
    bound = model.bind(flat, gradient, 1)
    x, y = np.array([[1.0, 2.0]]), np.array([1])
    expected = [0.25, 0.0, 0.5, 0.0, 0.25, 0.0, 2.25, -2.25, 0.0, 0.0, 0.75, -0.75]
    assert bound.loss_and_gradient(x, y) == pytest.approx(math.log(4.0), rel=1e-14)
    np.testing.assert_allclose(gradient, expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(bound.outputs(x), [[0.75, 0.25]], rtol=1e-14)
    # A row weight of 2 doubles loss and gradient.
    assert bound.loss_and_gradient(x, y, np.array([2.0])) == pytest.approx(2 * math.log(4.0), rel=1e-14)
    np.testing.assert_allclose(gradient, 2 * np.array(expected), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("hidden", "activation", "output"), CASES)
def test_torch_gives_the_same(hidden: list[int], activation: str, output: str, weighted: bool) -> None:
    torch = pytest.importorskip("torch")
    case = Case(hidden, activation, output)
    weights = case.row_weights if weighted else np.ones(ROWS)
    loss = case.bound.loss_and_gradient(case.x, case.y, weights if weighted else None)

    functional = torch.nn.functional
    function = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}[activation]
    parts = [torch.from_numpy(part.copy()).requires_grad_() for part in case.layout.views(case.flat).values()]
    z = torch.from_numpy(case.x)
    for index in range(0, len(parts), 2):
        z = z @ parts[index] + parts[index + 1]
        if index + 2 < len(parts):
            z = function(z)
    y = torch.from_numpy(case.y)
    if output == "softmax":
        losses = functional.cross_entropy(z, y, reduction="none")
    elif output == "sigmoid":
        targets = functional.one_hot(y, case.outputs).double()
        losses = functional.binary_cross_entropy_with_logits(z, targets, reduction="none").sum(dim=1)
    else:
        losses = 0.5 * functional.mse_loss(z[:, 0], y, reduction="none")
    expected = (losses * torch.from_numpy(weights)).mean()
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-12)
    flat = np.concatenate([part.grad.numpy().reshape(-1) for part in parts])
    np.testing.assert_allclose(case.gradient, flat, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(case.bound.losses(case.x, case.y), losses.detach().numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("output", OUTPUTS)
def test_float32_follows_float64(output: str) -> None:
    case = Case([5, 4], "tanh", output)
    config = model_section(hidden=[5, 4], activation="tanh", output=output)
    task: Any = "regression" if output == "linear" else "classification"
    model = build_model(config, shape=(FEATURES,), outputs=case.outputs, task=task)
    assert isinstance(model, MLP)
    flat = case.flat.astype(np.float32)
    gradient = np.empty_like(flat)
    loss = model.bind(flat, gradient, ROWS).loss_and_gradient(case.x.astype(np.float32), case.y)
    assert loss == pytest.approx(case.bound.loss_and_gradient(case.x, case.y), rel=1e-5)
    np.testing.assert_allclose(gradient, case.gradient, rtol=1e-4, atol=1e-6)
