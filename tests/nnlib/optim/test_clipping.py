"""Clipped gradients: torch's formula, and a norm that no cut of the vector changes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnlib.core.layout import BLOCK
from nnlib.optim.clipping import clip_norm, norm


def test_hand_worked() -> None:
    """The norm of (3, 4) is 5: clipped to 2.5 it is (3, 4) * 2.5 / (5 + 1e-6), clipped to 5 just below itself, to 6 it
    stays."""
    for largest, factor in ((2.5, 2.5 / 5.000001), (5.0, 5.0 / 5.000001), (6.0, 1.0)):
        gradient = np.array([3.0, 4.0])
        clip_norm(gradient, largest)
        assert gradient.tolist() == [3.0 * factor, 4.0 * factor]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("largest", [0.5, 3.0, 1e9])
def test_torch_clips_to_the_same(dtype: str, largest: float) -> None:
    torch = pytest.importorskip("torch")
    gradient = np.random.default_rng(0).normal(size=5_000).astype(dtype)
    parts = [torch.nn.Parameter(torch.zeros(2_000)), torch.nn.Parameter(torch.zeros(3_000))]
    parts = [torch.nn.Parameter(part.detach().to(getattr(torch, dtype))) for part in parts]
    for part, values in zip(parts, (gradient[:2_000], gradient[2_000:]), strict=True):
        part.grad = torch.from_numpy(values.copy())
    total = torch.nn.utils.clip_grad_norm_(parts, largest)
    assert norm(gradient) == pytest.approx(total.item(), rel=1e-6 if dtype == "float32" else 1e-14)
    clip_norm(gradient, largest)
    theirs = np.concatenate([part.grad.numpy() for part in parts])
    np.testing.assert_allclose(gradient, theirs, rtol=1e-6 if dtype == "float32" else 1e-13)


def test_the_norm_is_that_of_blocks_summed_exactly() -> None:
    vector = np.random.default_rng(1).normal(size=3 * BLOCK + 17).astype(np.float32)
    parts = [vector[at : at + BLOCK].astype(np.float64) for at in range(0, vector.size, BLOCK)]
    assert norm(vector) == math.sqrt(math.fsum(float(np.add.reduce(part * part)) for part in parts))
    large = np.full(4, 1e30, np.float32)  # their squares are beyond float32
    assert norm(large) == pytest.approx(2e30, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_stays_so(bad: float) -> None:
    """Divergence has to show in the weights: it must not be clipped away."""
    gradient = np.array([1.0, bad])
    with np.errstate(all="ignore"):
        clip_norm(gradient, 0.1)
    assert not np.isfinite(gradient).all()
