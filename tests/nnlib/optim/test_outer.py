"""Outer steps against numbers worked by hand, and the one that must be the average itself."""

from __future__ import annotations

import numpy as np
import pytest

from nnlib.config.kinds import OUTER_STEPS
from nnlib.config.load import load_config
from nnlib.config.training import outer_section
from nnlib.core.errors import ConfigError
from nnlib.optim import build_outer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", list(OUTER_STEPS))
def test_rate_one_without_momentum_is_the_average_bit_for_bit(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    model, average = (rng.normal(size=1000).astype(dtype) * 10.0 ** rng.integers(-30, 30, 1000) for _ in range(2))
    average[:2] = [-0.0, 0.0]
    average = average.astype(dtype)
    step = build_outer(outer_section(kind=kind), 1000)
    state = step.initial()
    assert state.shape == (0,)
    after, state = step.apply(model.astype(dtype), average, state)
    assert after.dtype == dtype and after.tobytes() == average.tobytes() and state.shape == (0,)


@pytest.mark.parametrize(
    ("kind", "lr", "momentum", "expected"),
    [
        # The average is always 4 below the model: delta = 4.
        ("mean", 0.5, 0.0, [-2.0, -4.0, -6.0]),
        ("mean", 2.0, 0.0, [-8.0, -16.0, -24.0]),
        ("momentum", 1.0, 0.5, [-4.0, -10.0, -17.0]),  # v = 4, 6, 7
        ("momentum", 0.5, 0.5, [-2.0, -5.0, -8.5]),
        ("nesterov", 1.0, 0.5, [-6.0, -13.0, -20.5]),  # 4 + v/2 = 6, 7, 7.5
        ("nesterov", 0.5, 0.0, [-2.0, -4.0, -6.0]),
    ],
)
def test_hand_worked(kind: str, lr: float, momentum: float, expected: list[float]) -> None:
    step = build_outer(outer_section(kind=kind, lr=lr, momentum=momentum), 2)
    model, state, seen = np.zeros(2, np.float32), step.initial(), []
    assert state.size == step.state_size == (2 if momentum else 0)
    for _ in range(3):
        before = model.copy(), state.copy()
        average = model - np.float32(4.0)
        new_model, new_state = step.apply(model, average, state)
        assert np.array_equal(model, before[0]) and np.array_equal(state, before[1])  # pure
        model, state = new_model, new_state
        seen.append(float(model[0]))
    assert seen == expected and model[0] == model[1] and model.dtype == np.float32


@pytest.mark.parametrize(("kind", "nesterov"), [("momentum", False), ("nesterov", True)])
def test_equals_torch_on_the_outer_gradient(kind: str, nesterov: bool) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    step = build_outer(outer_section(kind=kind, lr=0.7, momentum=0.9), 50)
    model, state = rng.normal(size=50), step.initial()
    theirs = torch.from_numpy(model.copy()).requires_grad_()
    optimizer = torch.optim.SGD([theirs], lr=0.7, momentum=0.9, nesterov=nesterov)
    for _ in range(10):
        noise = rng.normal(size=50)
        theirs.grad = torch.from_numpy(noise.copy())
        optimizer.step()
        model, state = step.apply(model, model - noise, state)
        np.testing.assert_allclose(model, theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_float32_is_rounded_once() -> None:
    rng = np.random.default_rng(2)
    model, average = (rng.normal(size=100).astype(np.float32) for _ in range(2))
    after, _ = build_outer(outer_section(kind="mean", lr=0.3), 100).apply(model, average, np.zeros(0))
    wide, aim = model.astype(np.float64), average.astype(np.float64)
    assert np.array_equal(after, (wide - 0.3 * (wide - aim)).astype(np.float32))


def test_refusals_name_the_key() -> None:
    with pytest.raises(ConfigError, match="adam") as unknown:
        build_outer(outer_section().model_copy(update={"kind": "adam"}), 3)
    assert unknown.value.where["key"] == "sync.outer.kind"
    with pytest.raises(ConfigError, match=r"sync\.outer\.momentum: the outer step mean does not read this key"):
        load_config(None, ["data.path=/d", "sync.outer.momentum=0.9"])
