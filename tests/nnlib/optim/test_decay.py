"""Weight decay: which arrays it counts (`train.decay`), AdamW's own, and the L2 term of every optimizer."""

from __future__ import annotations

import numpy as np
import pytest

from nnlib.config.training import model_section, train_section
from nnlib.core.entries import parameter
from nnlib.core.layout import Layout
from nnlib.models import build_model
from nnlib.models.mlp import MLP
from nnlib.optim import build_optimizer

LAYOUT = Layout.build([parameter("weight", (2, 2), decays=True), parameter("bias", (2,), decays=False)], "float64")


def stepped(optimizer: str, decay: str, l2: float, **keys: float) -> np.ndarray:
    """The parameters, all 1 before, after a step of rate 1/2 on a gradient of zeros."""
    built = build_optimizer(train_section(optimizer=optimizer, decay=decay, **keys), LAYOUT)
    assert not built.minimizes
    flat = np.ones(LAYOUT.size)
    built.step(flat, np.zeros(LAYOUT.size), 0.5, l2)
    return flat


def test_l2_hand_worked() -> None:
    """w -= 1/2 * (0 + 1/4 w) makes 7/8 of 1."""
    assert stepped("sgd", "matrices", 0.25).tolist() == [0.875] * 4 + [1.0] * 2
    assert stepped("sgd", "all", 0.25).tolist() == [0.875] * 6


def test_adamw_hand_worked() -> None:
    """w *= 1 - 1/2 * 1/4; Adam's step on a gradient of zeros is none."""
    assert stepped("adamw", "matrices", 0.0, weight_decay=0.25).tolist() == [0.875] * 4 + [1.0] * 2
    assert stepped("adamw", "all", 0.0, weight_decay=0.25).tolist() == [0.875] * 6


def test_adamw_without_weight_decay_is_adam() -> None:
    assert np.array_equal(stepped("adamw", "matrices", 0.3, weight_decay=0.0), stepped("adam", "matrices", 0.3))


def test_l2_and_weight_decay_come_together_from_the_same_weights() -> None:
    """The L2 gradient is 3/10 w of the weights before the step: Adam's first step is the rate, whatever its size."""
    both = stepped("adamw", "all", 0.3, weight_decay=0.25)
    np.testing.assert_allclose(both, 0.875 - 0.5, rtol=1e-7)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"])
def test_decay_all_equals_torch(optimizer: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    flat = rng.normal(size=LAYOUT.size)
    theirs_flat = torch.from_numpy(flat.copy()).requires_grad_()
    theirs = {
        "sgd": lambda: torch.optim.SGD([theirs_flat], lr=0.1, weight_decay=0.2),
        "momentum": lambda: torch.optim.SGD([theirs_flat], lr=0.1, momentum=0.9, weight_decay=0.2),
        "nesterov": lambda: torch.optim.SGD([theirs_flat], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.2),
        "adam": lambda: torch.optim.Adam([theirs_flat], lr=0.1, weight_decay=0.2),
        "adamw": lambda: torch.optim.AdamW([theirs_flat], lr=0.1, weight_decay=0.2),
        "rmsprop": lambda: torch.optim.RMSprop([theirs_flat], lr=0.1, weight_decay=0.2),
    }[optimizer]()
    keys = {"weight_decay": 0.2} if optimizer == "adamw" else {}
    ours = build_optimizer(train_section(optimizer=optimizer, decay="all", **keys), LAYOUT)
    assert not ours.minimizes
    for _ in range(5):
        gradient = rng.normal(size=LAYOUT.size)
        theirs_flat.grad = torch.from_numpy(gradient.copy())
        theirs.step()
        ours.step(flat, gradient, 0.1, 0.0 if optimizer == "adamw" else 0.2)
        np.testing.assert_allclose(flat, theirs_flat.detach().numpy(), rtol=1e-12, atol=1e-13)


def test_which_arrays_decay_is_no_part_of_the_layout() -> None:
    """Models of both settings can be averaged, and first weights are the same."""
    model = build_model(model_section(hidden=[3]), shape=(4,), outputs=2, task="classification")
    assert isinstance(model, MLP)
    assert model.layout.decayed_ranges("matrices") == model.layout.weight_ranges() == [slice(0, 12), slice(15, 21)]
    assert model.layout.decayed_ranges("all") == [slice(0, model.layout.size)]
    optimizer = build_optimizer(train_section(), model.layout)
    assert not optimizer.minimizes
    extended = model.layout.extended(optimizer.state_arrays)
    assert extended.decayed_ranges("all") == [slice(0, model.layout.size)]
