"""The MLP over flat vectors: views, buffers, starts, refusals, and learning something."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import reference

from nnlib.config.training import model_section
from nnlib.core.errors import ConfigError
from nnlib.core.layout import aligned_empty
from nnlib.models import build_model
from nnlib.models.mlp import MLP


def make(hidden: list[int], features: int = 6, outputs: int = 3, **keys: Any) -> MLP:
    model = build_model(model_section(hidden=hidden, **keys), shape=(features,), outputs=outputs, task="classification")
    assert isinstance(model, MLP)
    return model


def test_layout_is_weight_then_bias_per_layer() -> None:
    layout = make([5]).layout
    found = [(entry.name, entry.shape, entry.kind, entry.decays) for entry in layout.entries]
    assert found == [
        ("layer0.weight", (6, 5), "parameter", True),
        ("layer0.bias", (5,), "parameter", False),
        ("layer1.weight", (5, 3), "parameter", True),
        ("layer1.bias", (3,), "parameter", False),
    ]
    assert layout.dtype == "float32"


def test_every_parameter_is_a_view_of_the_flat_vector() -> None:
    model = make([5, 4])
    flat = model.initial(np.random.default_rng(0))
    bound = model.bind(flat, np.empty_like(flat), 8)
    for part in [*bound.weights, *bound.biases]:
        assert np.shares_memory(part, flat)
    assert sum(part.size for part in [*bound.weights, *bound.biases]) == flat.size
    x = np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)
    before = bound.outputs(x).copy()
    flat[:] = model.initial(np.random.default_rng(2))  # a new model received in place
    after = bound.outputs(x).copy()
    fresh = model.bind(flat.copy(), None, 8).outputs(x)
    assert not np.array_equal(before, after)
    assert np.array_equal(after, fresh)


def test_gradient_is_overwritten_whole_and_only_the_gradient() -> None:
    model = make([5])
    flat = model.initial(np.random.default_rng(0))
    kept = flat.copy()
    gradient = np.full_like(flat, np.nan)
    x = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    x_kept = x.copy()
    model.bind(flat, gradient, 4).loss_and_gradient(x, np.array([0, 1, 2, 0]))
    assert np.isfinite(gradient).all()
    assert np.array_equal(flat, kept) and np.array_equal(x, x_kept)


def test_result_does_not_depend_on_the_size_of_buffers_or_on_earlier_batches() -> None:
    model = make([7, 5])
    flat = model.initial(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(16, 6)).astype(np.float32)
    y = rng.integers(0, 3, 16)
    results = []
    for rows, warm in ((16, []), (64, []), (64, [64, 3, 16])):
        gradient = np.empty_like(flat)
        bound = model.bind(flat, gradient, rows)
        for other in warm:
            bound.loss_and_gradient(rng.normal(size=(other, 6)).astype(np.float32), rng.integers(0, 3, other))
        results.append((bound.loss_and_gradient(x, y), gradient.tobytes()))
    assert results[0] == results[1] == results[2]


def test_too_many_rows_and_scoring_only_are_refused() -> None:
    model = make([])
    flat = model.initial(np.random.default_rng(0))
    x = np.zeros((3, 6), np.float32)
    with pytest.raises(ValueError, match="3 rows"):
        model.bind(flat, None, 2).outputs(x)
    with pytest.raises(ValueError, match="only score"):
        model.bind(flat, None, 3).loss_and_gradient(x, np.zeros(3, np.int64))


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_no_rows_score_to_nothing(output: str) -> None:
    model = make([4], output=output)
    bound = model.bind(model.initial(np.random.default_rng(0)), None, 2)
    outputs, losses = bound.score(np.empty((0, 6), np.float32), np.empty(0, np.int64))
    assert outputs.shape == (0, 3) and losses.shape == (0,)


def test_score_is_outputs_and_losses() -> None:
    model = make([4])
    bound = model.bind(model.initial(np.random.default_rng(0)), None, 5)
    x = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    y = np.array([0, 1, 2, 1, 0])
    outputs, losses = bound.score(x, y)
    outputs = outputs.copy()
    assert np.array_equal(outputs, bound.outputs(x))
    assert np.array_equal(losses, bound.losses(x, y)) and losses.dtype == np.float64
    np.testing.assert_allclose(outputs.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(losses, -np.log(outputs[np.arange(5), y]), rtol=1e-5)


@pytest.mark.parametrize("init", ["he", "xavier", "normal", "uniform01"])
def test_float32_starts_from_the_float64_numbers(init: str) -> None:
    single = make([300], features=200, init=init).initial(np.random.default_rng(3))
    double = make([300], features=200, init=init, dtype="float64").initial(np.random.default_rng(3))
    assert single.dtype == np.float32 and double.dtype == np.float64
    assert np.array_equal(single, double.astype(np.float32))


def test_initial_distributions() -> None:
    fan_in, fan_out = 200, 300
    cases = {
        "he": (0.0, math.sqrt(2 / fan_in), None),
        "xavier": (0.0, math.sqrt(2 / (fan_in + fan_out)), math.sqrt(6 / (fan_in + fan_out))),
        "normal": (0.0, 0.05, None),
        "uniform01": (0.5, math.sqrt(1 / 12), 1.0),
    }
    for init, (mean, deviation, bound) in cases.items():
        model = make([fan_out], features=fan_in, init=init, dtype="float64")
        views = model.layout.views(model.initial(np.random.default_rng(4)))
        weights, bias = views["layer0.weight"], views["layer0.bias"]
        assert weights.mean() == pytest.approx(mean, abs=4 * deviation / math.sqrt(weights.size))
        assert weights.std() == pytest.approx(deviation, rel=0.02)
        assert bound is None or np.abs(weights).max() <= bound
        if init == "uniform01":
            assert bias.min() >= 0.0 and bias.max() < 1.0 and bias.std() > 0.2
        else:
            assert not bias.any()


@pytest.mark.parametrize(
    ("keys", "task", "outputs", "key"),
    [
        ({"output": "linear"}, "classification", 3, "model.output"),
        ({"output": "softmax"}, "regression", 1, "model.output"),
    ],
)
def test_what_does_not_exist_or_fit_is_a_config_error(keys: dict[str, str], task: str, outputs: int, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(model_section(**keys), shape=(4,), outputs=outputs, task=task)  # type: ignore[arg-type]
    assert caught.value.where["key"] == key and caught.value.hint


def test_a_kind_that_does_not_exist_is_a_config_error() -> None:
    unknown = model_section().model_copy(update={"kind": "mpl"})
    with pytest.raises(ConfigError, match="mpl") as caught:
        build_model(unknown, shape=(4,), outputs=3, task="classification")
    assert caught.value.where["key"] == "model.kind" and caught.value.hint


def test_auto_output_follows_the_task() -> None:
    for task, outputs, loss in (("classification", 3, "softmax"), ("regression", 1, "linear")):
        model = build_model(model_section(), shape=(4,), outputs=outputs, task=task)  # type: ignore[arg-type]
        assert isinstance(model, MLP) and model.loss == loss


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("output", ["softmax", "sigmoid", "linear"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("hidden", [[], [20], [20, 15]])
def test_equals_the_readable_reference_bit_for_bit(hidden: list[int], activation: str, output: str, dtype: str) -> None:
    classes, task = (1, "regression") if output == "linear" else (5, "classification")
    keys: Any = {"hidden": hidden, "activation": activation, "output": output, "dtype": dtype, "init": "xavier"}
    config = model_section(**keys)
    model = build_model(config, shape=(30,), outputs=classes, task=task)  # type: ignore[arg-type]
    assert isinstance(model, MLP)
    rng = np.random.default_rng(7)
    flat = model.initial(rng)
    gradient = np.empty_like(flat)
    bound = model.bind(flat, gradient, 16)
    layers = reference.unflatten(flat, [30, *hidden, classes])
    for rows, weighted in itertools.product((16, 5), (False, True)):
        x = rng.normal(size=(rows, 30)).astype(dtype)
        y = rng.normal(size=rows).astype(dtype) if output == "linear" else rng.integers(0, classes, rows)
        row_weights = rng.random(rows).astype(dtype) if weighted else None
        loss = bound.loss_and_gradient(x, y, row_weights)
        expected_loss, expected = reference.loss_and_gradient(layers, x, y, activation, output, row_weights)
        assert loss == expected_loss
        assert np.array_equal(gradient, reference.flatten(expected))


def test_learns_a_rule_by_heart() -> None:
    """Sixteen random points with random labels: a net of 32 tanh units must reach zero errors."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(16, 4)).astype(np.float32)
    y = rng.integers(0, 3, 16)
    model = make([32], features=4, activation="tanh", init="xavier")
    flat = model.initial(rng)
    gradient = aligned_empty(flat.size, flat.dtype)
    bound = model.bind(flat, gradient, 16)
    for _ in range(1500):
        loss = bound.loss_and_gradient(x, y)
        flat -= 0.5 * gradient
    assert loss < 0.01
    assert np.array_equal(bound.outputs(x).argmax(axis=1), y)


def test_linear_regression_reaches_an_exact_rule() -> None:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(64, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + 3.0
    model = build_model(
        model_section(hidden=[], dtype="float64", init="normal"), shape=(3,), outputs=1, task="regression"
    )
    assert isinstance(model, MLP)
    flat = model.initial(rng)
    gradient = np.empty_like(flat)
    bound = model.bind(flat, gradient, 64)
    for _ in range(600):
        loss = bound.loss_and_gradient(x, y)
        flat -= 0.3 * gradient
    assert loss < 1e-20
    np.testing.assert_allclose(flat, [1.0, -2.0, 0.5, 3.0], atol=1e-9)
    np.testing.assert_allclose(bound.outputs(x)[:, 0], y, atol=1e-9)
