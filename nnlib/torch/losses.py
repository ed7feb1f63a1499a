"""The losses of training in torch: those of `nnlib.models.functions` and `nnlib.models.training_losses`, up to
rounding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from nnlib.config.schema import Train
from nnlib.models.training_losses import training_loss

RowLosses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _softmax(z: torch.Tensor, y: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    return functional.cross_entropy(z, y, reduction="none", label_smoothing=smoothing)


def _sigmoids(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    targets = functional.one_hot(y, z.shape[1]).to(z.dtype)
    return functional.binary_cross_entropy_with_logits(z, targets, reduction="none").sum(dim=1)


def _linear(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 0.5 * functional.mse_loss(z[:, 0], y.to(z.dtype), reduction="none")


def _huber(z: torch.Tensor, y: torch.Tensor, delta: float) -> torch.Tensor:
    return functional.huber_loss(z[:, 0], y.to(z.dtype), reduction="none", delta=delta)


ROW_LOSSES: dict[str, RowLosses] = {"softmax": _softmax, "sigmoid": _sigmoids, "linear": _linear}
"""Loss -> function of the module's outputs (b, outputs) and targets (b,); returns the loss of each row, (b,)."""


class TrainingLoss:
    """The loss that a section trains by, of a model whose plain loss is ``loss``."""

    def __init__(self, train: Train, loss: str) -> None:
        """Raises `ConfigError` where they do not fit."""
        training_loss(train, loss)
        self._is_softmax, self._smoothing = loss == "softmax", train.label_smoothing
        self._row_losses = ROW_LOSSES[loss]
        if train.loss == "huber":
            self._row_losses = partial(_huber, delta=train.huber_delta)
        elif self._smoothing:
            self._row_losses = partial(_softmax, smoothing=self._smoothing)

    def mean(self, z: torch.Tensor, y: torch.Tensor, row_weights: torch.Tensor | None, rows: int) -> torch.Tensor:
        """Compute the sum of the losses of outputs ``z`` (b, outputs) and targets ``y`` (b,), each times its weight,
        divided by ``rows``: a scalar.

        Without weights, cross-entropy over the whole step is torch's own mean: the bits of a plain training loop.
        """
        if self._is_softmax and row_weights is None and rows == len(y):
            return functional.cross_entropy(z, y, label_smoothing=self._smoothing)
        losses = self._row_losses(z, y)
        if row_weights is not None:
            losses = losses * row_weights
        return losses.sum() / rows
