"""Smoothed labels and Huber's loss: hand-worked numbers, finite differences, torch, and the plain loss in scoring."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nnlib.config.training import model_section, train_section
from nnlib.core.errors import ConfigError
from nnlib.models import LearningTask, build_model
from nnlib.models.functions import LOSSES
from nnlib.models.mlp import MLP
from nnlib.models.training_losses import training_loss

SMOOTHED: dict[str, Any] = {"label_smoothing": 0.2}
HUBER: dict[str, Any] = {"loss": "huber", "huber_delta": 0.75}
CASES: list[tuple[str, dict[str, Any]]] = [("softmax", SMOOTHED), ("linear", HUBER)]
ROWS = 6


def test_smoothed_labels_hand_worked() -> None:
    """p = (3/4, 1/4), label 0, s = 1/5: the target is (9/10, 1/10), the loss -9/10 ln 3/4 - 1/10 ln 1/4."""
    loss = training_loss(train_section(**SMOOTHED), "softmax")(1, 2, "float64")
    z = np.array([[math.log(3.0) + 7.0, 7.0]])
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert loss.train(z, np.array([0])).tolist() == pytest.approx([expected], rel=1e-13)
    np.testing.assert_allclose(z, [[0.75 - 0.9, 0.25 - 0.1]], rtol=1e-13)


def test_huber_hand_worked() -> None:
    """delta = 3/4: e = 1/2 costs 1/8 with slope 1/2; e = -2 costs 3/4 (2 - 3/8) with slope -3/4."""
    loss = training_loss(train_section(**HUBER), "linear")(3, 1, "float64")
    z = np.array([[1.5], [-1.0], [1.75]])
    assert loss.train(z, np.ones(3)).tolist() == [0.125, 1.21875, 0.28125]
    assert z[:, 0].tolist() == [0.5, -0.75, 0.75]


class Case:
    """A small net in float64 that trains by such a loss."""

    def __init__(self, output: str, keys: dict[str, Any]) -> None:
        self.outputs = 1 if output == "linear" else 3
        task: LearningTask = "regression" if output == "linear" else "classification"
        config = model_section(hidden=[5, 4], activation="tanh", dtype="float64", init="xavier")
        model = build_model(config, shape=(4,), outputs=self.outputs, task=task)
        assert isinstance(model, MLP)
        rng = np.random.default_rng(8)
        self.layout = model.layout
        self.flat = model.initial(rng) + 0.2 * rng.normal(size=model.layout.size)
        self.gradient = np.empty_like(self.flat)
        self.bound = model.bind(self.flat, self.gradient, ROWS, training_loss(train_section(**keys), output))
        self.plain = model.bind(self.flat, None, ROWS)
        self.x = rng.normal(size=(ROWS, 4))
        self.y = 2.0 * rng.normal(size=ROWS) if output == "linear" else rng.integers(0, self.outputs, ROWS)
        self.row_weights = rng.uniform(0.2, 3.0, ROWS)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("output", "keys"), CASES)
def test_finite_differences(output: str, keys: dict[str, Any], weighted: bool) -> None:
    case, step = Case(output, keys), 1e-6
    weights = case.row_weights if weighted else None
    case.bound.loss_and_gradient(case.x, case.y, weights)
    gradient, differences = case.gradient.copy(), np.empty_like(case.gradient)
    for index, value in enumerate(case.flat.copy()):
        case.flat[index] = value + step
        above = case.bound.loss_and_gradient(case.x, case.y, weights)
        case.flat[index] = value - step
        below = case.bound.loss_and_gradient(case.x, case.y, weights)
        case.flat[index] = value
        differences[index] = (above - below) / (2 * step)
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=2e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("output", "keys"), CASES)
def test_torch_gives_the_same(output: str, keys: dict[str, Any], weighted: bool) -> None:
    torch = pytest.importorskip("torch")
    case = Case(output, keys)
    weights = case.row_weights if weighted else np.ones(ROWS)
    loss = case.bound.loss_and_gradient(case.x, case.y, weights if weighted else None)
    functional = torch.nn.functional
    parts = [torch.from_numpy(part.copy()).requires_grad_() for part in case.layout.views(case.flat).values()]
    z = torch.from_numpy(case.x)
    for index in range(0, len(parts), 2):
        z = z @ parts[index] + parts[index + 1]
        z = torch.tanh(z) if index + 2 < len(parts) else z
    y = torch.from_numpy(case.y)
    if output == "softmax":
        losses = functional.cross_entropy(z, y, reduction="none", label_smoothing=0.2)
    else:
        losses = functional.huber_loss(z[:, 0], y, reduction="none", delta=0.75)
        errors = (z[:, 0] - y).abs()
        assert (errors < 0.75).any() and (errors > 0.75).any()
    expected = (losses * torch.from_numpy(weights)).mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    flat = np.concatenate([part.grad.numpy().reshape(-1) for part in parts])
    np.testing.assert_allclose(case.gradient, flat, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("output", "keys"), CASES)
def test_scores_are_of_the_plain_loss(output: str, keys: dict[str, Any]) -> None:
    case = Case(output, keys)
    trained = case.bound.loss_and_gradient(case.x, case.y)
    for bound in (case.bound, case.plain):
        assert np.array_equal(bound.losses(case.x, case.y), case.plain.score(case.x, case.y)[1])
    assert abs(trained - float(case.plain.losses(case.x, case.y).mean())) > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("output", "keys"), CASES)
def test_extreme_outputs_keep_finite_losses_and_their_dtype(output: str, keys: dict[str, Any], dtype: str) -> None:
    outputs = 1 if output == "linear" else 3
    loss = training_loss(train_section(**keys), output)(2, outputs, dtype)
    z = np.full((2, outputs), 1e4, dtype)
    z[1] = -1e4
    losses = loss.train(z, np.zeros(2, np.int64 if outputs > 1 else np.float64))
    assert losses.dtype == z.dtype == dtype
    assert np.isfinite(losses).all() and np.isfinite(z).all()


def test_without_such_keys_it_is_the_plain_loss() -> None:
    for name, plain in LOSSES.items():
        assert training_loss(train_section(), name) is plain


@pytest.mark.parametrize(
    ("keys", "output", "key"),
    [
        (HUBER, "softmax", "train.loss"),
        (HUBER, "sigmoid", "train.loss"),
        (SMOOTHED, "sigmoid", "train.label_smoothing"),
        (SMOOTHED, "linear", "train.label_smoothing"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict[str, Any], output: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        training_loss(train_section(**keys), output)
    assert caught.value.where["key"] == key and caught.value.hint
