"""The losses of training in torch, equal to those of `nnlib.models.functions` up to rounding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

RowLosses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _softmax(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(z, y, reduction="none")


def _sigmoids(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    targets = functional.one_hot(y, z.shape[1]).to(z.dtype)
    return functional.binary_cross_entropy_with_logits(z, targets, reduction="none").sum(dim=1)


def _linear(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 0.5 * functional.mse_loss(z[:, 0], y.to(z.dtype), reduction="none")


ROW_LOSSES: dict[str, RowLosses] = {"softmax": _softmax, "sigmoid": _sigmoids, "linear": _linear}
"""Loss -> function of the module's outputs (b, outputs) and targets (b,); returns the loss of each row, (b,)."""


def mean_loss(loss: str, z: torch.Tensor, y: torch.Tensor, row_weights: torch.Tensor | None, rows: int) -> torch.Tensor:
    """Compute the sum of the rows' losses, each times its weight, divided by ``rows``: a scalar.

    Without weights, cross-entropy over the whole batch is torch's own mean: the bits of a plain training loop.
    """
    if loss == "softmax" and row_weights is None and rows == len(y):
        return functional.cross_entropy(z, y)
    losses = ROW_LOSSES[loss](z, y)
    if row_weights is not None:
        losses = losses * row_weights
    return losses.sum() / rows
