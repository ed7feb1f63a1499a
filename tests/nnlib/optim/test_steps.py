"""Local optimizers: torch's trajectories, state that can be carried, blocks that change no bit, and known optima."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import reference
import scipy.optimize

from nnlib.config.kinds import OPTIMIZERS
from nnlib.config.training import model_section, train_section
from nnlib.core.entries import parameter
from nnlib.core.errors import ConfigError
from nnlib.core.layout import Layout
from nnlib.models import LearningTask, build_model
from nnlib.models.mlp import MLP
from nnlib.optim import StepOptimizer, build_optimizer
from nnlib.optim.protocol import Float64

STEPS = [name for name, kind in OPTIMIZERS.items() if kind.averages_gradients and not kind.model_kinds]
METHODS = {"cg": "CG", "lbfgs": "L-BFGS-B"}
BATCHES = [name for name, kind in OPTIMIZERS.items() if not kind.averages_gradients]
LAYOUT = Layout.build(
    [
        parameter("a.weight", (7, 5), decays=True),
        parameter("a.bias", (5,), decays=False),
        parameter("b.weight", (5, 3), decays=True),
        parameter("b.bias", (3,), decays=False),
    ],
    "float64",
)


def step_optimizer(name: str, layout: Layout = LAYOUT, **keys: Any) -> StepOptimizer:
    optimizer = build_optimizer(train_section(optimizer=name, **keys), layout)
    assert not optimizer.minimizes
    return optimizer


def perceptron(config: Any, features: int, outputs: int, task: LearningTask = "classification") -> MLP:
    model = build_model(config, shape=(features,), outputs=outputs, task=task)
    assert isinstance(model, MLP)
    return model


def walk(optimizer: StepOptimizer, flat: np.ndarray, steps: range, decay: float = 0.01) -> np.ndarray:
    """Steps on gradients drawn per step, with a rate that changes."""
    flat = flat.copy()
    gradient = np.empty_like(flat)
    for step in steps:
        gradient[:] = np.random.default_rng(step).normal(size=flat.size)
        optimizer.step(flat, gradient, 0.1 / (1 + step), decay)
    return flat


def start(layout: Layout = LAYOUT) -> np.ndarray:
    return np.random.default_rng(99).normal(size=layout.size).astype(layout.dtype)


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("name", STEPS)
def test_trajectory_equals_torch(name: str, decay: float) -> None:
    """20 steps in float64 with a changing rate; weight decay on weights, none on biases. AdamW's is its own."""
    torch = pytest.importorskip("torch")
    flat = start()
    parts = [torch.from_numpy(part.copy()).requires_grad_() for part in LAYOUT.views(flat).values()]
    groups = [{"params": parts[0::2], "weight_decay": decay}, {"params": parts[1::2], "weight_decay": 0.0}]
    theirs = {
        "sgd": lambda: torch.optim.SGD(groups, lr=1.0),
        "momentum": lambda: torch.optim.SGD(groups, lr=1.0, momentum=0.8),
        "nesterov": lambda: torch.optim.SGD(groups, lr=1.0, momentum=0.8, nesterov=True),
        "adam": lambda: torch.optim.Adam(groups, lr=1.0, betas=(0.85, 0.99), eps=1e-6),
        "adamw": lambda: torch.optim.AdamW(groups, lr=1.0, betas=(0.85, 0.99), eps=1e-6),
        "rmsprop": lambda: torch.optim.RMSprop(groups, lr=1.0, alpha=0.9, eps=1e-6, momentum=0.8, centered=True),
    }[name]()
    ours = step_optimizer(
        name, momentum=0.8, beta1=0.85, beta2=0.99, epsilon=1e-6, weight_decay=decay, alpha=0.9, centered=True
    )
    l2 = 0.0 if name == "adamw" else decay
    rng = np.random.default_rng(5)
    for step in range(20):
        slope = rng.normal(size=flat.size)
        lr = 0.1 / (1 + step)
        for part, values in zip(parts, LAYOUT.views(slope.copy()).values(), strict=True):
            part.grad = torch.from_numpy(values.copy())
        for group in theirs.param_groups:
            group["lr"] = lr
        theirs.step()
        ours.step(flat, slope, lr, l2)
        expected = np.concatenate([part.detach().numpy().reshape(-1) for part in parts])
        np.testing.assert_allclose(flat, expected, rtol=1e-12, atol=1e-12)


def test_momentum_and_nesterov_hand_worked() -> None:
    """mu = 1/2, lr = 1, w = 0, g = 1 then 1: v = 1, 3/2. Heavy ball: w = -1, -5/2. Nesterov: -3/2, -13/4."""
    layout = Layout.build([parameter("w", (1,), decays=False)], "float64")
    for name, expected in (("momentum", [-1.0, -2.5]), ("nesterov", [-1.5, -3.25])):
        optimizer, flat, seen = step_optimizer(name, layout, momentum=0.5), np.zeros(1), []
        for _ in range(2):
            optimizer.step(flat, np.ones(1), 1.0, 0.0)
            seen.append(float(flat[0]))
        assert seen == expected


def test_adam_first_step_is_the_rate_whatever_the_gradient() -> None:
    layout = Layout.build([parameter("w", (3,), decays=False)], "float64")
    optimizer, flat = step_optimizer("adam", layout), np.zeros(3)
    optimizer.step(flat, np.array([1e-3, -5.0, 1e4]), 0.01, 0.0)
    np.testing.assert_allclose(flat, [-0.01, 0.01, -0.01], rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STEPS)
def test_blocks_change_no_bit(name: str, dtype: str) -> None:
    layout = Layout.build(LAYOUT.entries, dtype)
    results = set()
    for block in (1, 7, 36, 40, layout.size, 10_000):
        optimizer = OPTIMIZERS[name].load()(train_section(optimizer=name), layout, block)
        walked = walk(optimizer, start(layout), range(12))
        assert walked.dtype == dtype and optimizer.state.dtype == dtype
        results.add(walked.tobytes() + optimizer.state.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("name", STEPS)
def test_state_carried_over_goes_on_where_it_was(name: str) -> None:
    first = step_optimizer(name)
    middle = walk(first, start(), range(6))
    second = step_optimizer(name)
    second.state[:] = first.state
    resumed = walk(second, middle, range(6, 12))
    assert np.array_equal(resumed, walk(step_optimizer(name), start(), range(12)))


@pytest.mark.parametrize("name", STEPS)
def test_reset_forgets_and_state_arrays_describe_the_state(name: str) -> None:
    optimizer = step_optimizer(name)
    once = walk(optimizer, start(), range(5))
    if name != "sgd":
        assert optimizer.state.any()
    optimizer.reset()
    assert not optimizer.state.any()
    assert np.array_equal(walk(optimizer, start(), range(5)), once)
    extended = LAYOUT.extended(optimizer.state_arrays)
    assert extended.size == LAYOUT.size + optimizer.state.size
    assert extended.weight_ranges() == LAYOUT.weight_ranges()


@pytest.mark.parametrize("name", STEPS)
def test_another_vector_is_noticed(name: str) -> None:
    """The cut blocks belong to one pair of vectors; others must not be mixed up with them."""
    optimizer = step_optimizer(name)
    walk(optimizer, start(), range(2))
    optimizer.reset()
    assert np.array_equal(walk(optimizer, start(), range(3)), walk(step_optimizer(name), start(), range(3)))


def test_a_training_loop_equals_the_reference_bit_for_bit() -> None:
    """SGD with momentum and weight decay on float32 batches, the last one smaller."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(70, 12)).astype(np.float32), rng.integers(0, 4, 70)
    batches = [(x[at : at + 16].copy(), y[at : at + 16]) for at in range(0, 70, 16)] * 4
    model = perceptron(model_section(hidden=[9, 8]), 12, 4)
    flat = model.initial(rng)
    layers = reference.unflatten(flat, [12, 9, 8, 4])
    gradient = np.empty_like(flat)
    bound = model.bind(flat, gradient, 16)
    optimizer = step_optimizer("momentum", model.layout)
    losses = []
    for xs, ys in batches:
        losses.append(bound.loss_and_gradient(xs, ys))
        optimizer.step(flat, gradient, 0.05, 1e-3)
    trained, expected = reference.train(layers, batches, lr=0.05, momentum=0.9, decay=1e-3)
    assert losses == expected
    assert np.array_equal(flat, reference.flatten(trained))


def quadratic(point: Float64) -> tuple[float, Float64]:
    """Convex, condition 100, minimum 0 at (1, 1, ..., 1)."""
    scale = np.linspace(1.0, 100.0, point.size)
    return float(0.5 * np.sum(scale * (point - 1.0) ** 2)), scale * (point - 1.0)


def rosenbrock(point: Float64) -> tuple[float, Float64]:
    x, y = point
    value = (1 - x) ** 2 + 100 * (y - x * x) ** 2
    return float(value), np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])


@pytest.mark.parametrize("name", BATCHES)
class TestBatch:
    def build(self, name: str) -> Any:
        optimizer = build_optimizer(train_section(optimizer=name), LAYOUT)
        assert optimizer.minimizes
        return optimizer

    def test_reaches_known_minima_and_stops_quietly_there(self, name: str) -> None:
        """Far more iterations than needed: the line search fails at the optimum, which is no error and no warning."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = self.build(name).minimize(quadratic, np.zeros(20), 500)
            valley = self.build(name).minimize(rosenbrock, np.array([-1.2, 1.0]), 500)
        np.testing.assert_allclose(found.point, np.ones(20), atol=1e-6)
        np.testing.assert_allclose(valley.point, [1.0, 1.0], atol=1e-5)
        assert found.loss == quadratic(found.point)[0] and found.message

    def test_takes_no_more_iterations_than_asked_and_counts_evaluations(self, name: str) -> None:
        calls = 0

        def counted(point: Float64) -> tuple[float, Float64]:
            nonlocal calls
            calls += 1
            return rosenbrock(point)

        losses = []
        for iterations in range(6):
            calls = 0
            found = self.build(name).minimize(counted, np.array([-1.2, 1.0]), iterations)
            assert found.evaluations == calls
            losses.append(found.loss)
            if iterations:
                method, options = METHODS[name], {"maxiter": iterations, "gtol": 0.0}
                theirs = scipy.optimize.minimize(rosenbrock, [-1.2, 1.0], jac=True, method=method, options=options)
                assert theirs.nit == iterations and np.array_equal(theirs.x, found.point)
        assert losses == sorted(losses, reverse=True) and losses[5] < losses[0]

    def test_is_deterministic_and_leaves_the_start_alone(self, name: str) -> None:
        begin = np.array([-1.2, 1.0])
        first, second = (self.build(name).minimize(rosenbrock, begin, 7).point.tobytes() for _ in range(2))
        assert first == second and begin.tolist() == [-1.2, 1.0]

    def test_an_objective_that_reuses_its_gradient_is_safe(self, name: str) -> None:
        slope = np.empty(2)

        def reused(point: Float64) -> tuple[float, Float64]:
            value, slope[:] = rosenbrock(point)
            return value, slope

        plain = self.build(name).minimize(rosenbrock, np.array([-1.2, 1.0]), 9)
        assert np.array_equal(self.build(name).minimize(reused, np.array([-1.2, 1.0]), 9).point, plain.point)


@pytest.mark.parametrize("name", BATCHES)
def test_softmax_regression_optimum_is_scikit_learns(name: str) -> None:
    """l2 = lambda: scikit-learn minimises C * sum of losses + half the squared weights, so C = 1 / lambda."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(4)
    x = rng.normal(size=(120, 5))
    y = (x @ rng.normal(size=(5, 3)) + rng.normal(size=(120, 3))).argmax(axis=1)
    l2 = 2.0
    model = perceptron(model_section(hidden=[], dtype="float64"), 5, 3)
    flat = model.initial(rng)
    objective = with_l2(model, flat, x, y, l2 / len(x))
    optimizer = build_optimizer(train_section(optimizer=name), model.layout)
    assert optimizer.minimizes
    flat[:] = optimizer.minimize(objective, flat, 400).point
    theirs = linear_model.LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000).fit(x, y)
    views = model.layout.views(flat)
    np.testing.assert_allclose(views["layer0.weight"], theirs.coef_.T, atol=2e-5)
    np.testing.assert_allclose(model.bind(flat, None, 120).outputs(x), theirs.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("name", BATCHES)
def test_linear_regression_optimum_is_scikit_learns(name: str) -> None:
    """Half squared errors with lambda: scikit-learn's ridge with alpha = lambda."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(80, 4)), rng.normal(size=80)
    l2 = 3.0
    model = perceptron(model_section(hidden=[], dtype="float64"), 4, 1, "regression")
    flat = model.initial(rng)
    objective = with_l2(model, flat, x, y, l2 / len(x))
    optimizer = build_optimizer(train_section(optimizer=name), model.layout)
    assert optimizer.minimizes
    point = optimizer.minimize(objective, flat, 200).point
    theirs = linear_model.Ridge(alpha=l2, tol=1e-12).fit(x, y)
    np.testing.assert_allclose(point, [*theirs.coef_, theirs.intercept_], atol=1e-6)


def with_l2(model: Any, flat: np.ndarray, x: np.ndarray, y: np.ndarray, decay: float) -> Any:
    """The whole objective of a model at a point: mean data loss + decay/2 * sum of squared weights."""
    gradient = np.empty_like(flat)
    bound = model.bind(flat, gradient, len(x))

    def objective(point: Float64) -> tuple[float, Float64]:
        flat[:] = point
        loss = bound.loss_and_gradient(x, y)
        slope = gradient.copy()
        for part in model.layout.weight_ranges():
            slope[part] += decay * point[part]
            loss += 0.5 * decay * float(point[part] @ point[part])
        return loss, slope

    return objective


def test_unknown_optimizer_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="adagrad"):
        build_optimizer(train_section().model_copy(update={"optimizer": "adagrad"}), LAYOUT)
