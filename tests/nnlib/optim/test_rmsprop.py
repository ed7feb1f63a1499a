"""RMSprop: hand-worked steps, each of its options against torch, and state that can be averaged."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from nnlib.config.training import train_section
from nnlib.core.entries import parameter
from nnlib.core.layout import Layout
from nnlib.optim import StepOptimizer, build_optimizer

ONE = Layout.build([parameter("w", (1,), decays=False)], "float64")


def rmsprop(layout: Layout, **keys: Any) -> StepOptimizer:
    optimizer = build_optimizer(train_section(optimizer="rmsprop", **keys), layout)
    assert not optimizer.minimizes
    return optimizer


def test_hand_worked() -> None:
    """alpha = 3/4, lr = 1, g = 4: s = 1/4 16 = 4, w -= 4 / (2 + 2) = 1. Then g = 0: s = 3, w stays.

    Centered: a = 1/4 4 = 1, s - a^2 = 3, w -= 4 / (sqrt(3) + 2). With momentum 1/2 the second step, whose own part is
    0, is half the first.
    """
    keys = {"alpha": 0.75, "epsilon": 2.0}
    for more, expected in (
        ({}, [-1.0, -1.0]),
        ({"centered": True}, [-4 / (3**0.5 + 2), -4 / (3**0.5 + 2)]),
        ({"momentum": 0.5}, [-1.0, -1.5]),
    ):
        optimizer, flat, seen = rmsprop(ONE, **keys, **more), np.zeros(1), []
        for gradient in (4.0, 0.0):
            optimizer.step(flat, np.array([gradient]), 1.0, 0.0)
            seen.append(float(flat[0]))
        assert seen == pytest.approx(expected, rel=1e-15)
        assert optimizer.state[0] == 3.0


@pytest.mark.parametrize(("centered", "momentum"), list(itertools.product([False, True], [0.0, 0.7])))
def test_options_equal_torch(centered: bool, momentum: float) -> None:
    torch = pytest.importorskip("torch")
    layout = Layout.build([parameter("w", (40,), decays=False)], "float64")
    ours = rmsprop(layout, alpha=0.9, epsilon=1e-7, centered=centered, momentum=momentum)
    flat = np.random.default_rng(1).normal(size=40)
    theirs_flat = torch.from_numpy(flat.copy()).requires_grad_()
    theirs = torch.optim.RMSprop([theirs_flat], lr=0.01, alpha=0.9, eps=1e-7, centered=centered, momentum=momentum)
    for step in range(30):
        gradient = np.random.default_rng(step).normal(size=40)
        theirs_flat.grad = torch.from_numpy(gradient.copy())
        theirs.step()
        ours.step(flat, gradient, 0.01, 0.0)
        np.testing.assert_allclose(flat, theirs_flat.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_only_what_is_used_is_state() -> None:
    for keys, names in (
        ({}, ["rmsprop.s"]),
        ({"centered": True}, ["rmsprop.s", "rmsprop.a"]),
        ({"momentum": 0.5}, ["rmsprop.s", "rmsprop.velocity"]),
        ({"centered": True, "momentum": 0.5}, ["rmsprop.s", "rmsprop.a", "rmsprop.velocity"]),
    ):
        assert [entry.name for entry in rmsprop(ONE, **keys).state_arrays] == names


def test_a_variance_that_rounding_makes_negative_counts_as_zero() -> None:
    """Averaged state may have s a little below a^2."""
    optimizer, flat = rmsprop(ONE, centered=True, alpha=0.5, epsilon=0.5), np.zeros(1)
    optimizer.state[:] = 1.0, 1.0 + 1e-9
    optimizer.step(flat, np.ones(1), 1.0, 0.0)
    assert flat.tolist() == [-2.0]
