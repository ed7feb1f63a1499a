"""Losses of training alone: a model that learns by one of them is scored by the plain loss of its outputs."""

from __future__ import annotations

from functools import partial

import numpy as np

from nnlib.config.schema import Train
from nnlib.core.arrays import Array
from nnlib.core.errors import ConfigError
from nnlib.core.layout import aligned_empty
from nnlib.models.functions import LOSSES, Linear, LossFactory, Softmax


class SmoothedSoftmax(Softmax):
    """Cross-entropy with smoothed labels (Szegedy et al. 2016, section 7): the loss of (1 - s) of the label y and s / K
    of each of the K classes, which is that of the label alone + s (z_y - mean of z)."""

    def __init__(self, rows: int, outputs: int, dtype: str, smoothing: float) -> None:
        super().__init__(rows, outputs, dtype)
        self._smoothing, self._spread = smoothing, smoothing / outputs
        self._labels = np.empty(rows, np.intp)
        self._targets = aligned_empty(rows, dtype)
        self._means = aligned_empty(rows, dtype)

    def train(self, z: Array, y: Array) -> Array:
        """See `nnlib.models.functions.Loss.train`."""
        flat = z.reshape(-1)
        np.add(self._first, y, out=self._labels)
        np.take(flat, self._labels, out=self._targets, mode="clip")
        np.add.reduce(z, axis=1, out=self._means)
        np.divide(self._means, z.shape[1], out=self._means)
        np.subtract(self._targets, self._means, out=self._targets)
        np.multiply(self._targets, self._smoothing, out=self._targets)
        losses = super().train(z, y)
        flat[self._labels] += self._smoothing
        np.subtract(z, self._spread, out=z)
        np.add(losses, self._targets, out=losses)
        return losses


class Huber(Linear):
    """The loss of Huber 1964: e^2 / 2 of an error e = z - y of at most delta, beyond it delta (|e| - delta / 2)."""

    def __init__(self, rows: int, outputs: int, dtype: str, delta: float) -> None:
        super().__init__(rows, outputs, dtype)
        self._delta = delta
        self._clipped = aligned_empty(rows, dtype)

    def train(self, z: Array, y: Array) -> Array:
        """See `nnlib.models.functions.Loss.train`. With c = e cut to -delta ... delta the loss is c (e - c / 2)."""
        error, clipped = z[:, 0], self._clipped
        np.subtract(error, y, out=error, casting="same_kind")
        np.clip(error, -self._delta, self._delta, out=clipped)
        np.multiply(clipped, 0.5, out=self._losses)
        np.subtract(error, self._losses, out=self._losses)
        np.multiply(self._losses, clipped, out=self._losses)
        error[:] = clipped
        return self._losses


def training_loss(train: Train, loss: str) -> LossFactory:
    """Return what makes the loss that a section trains by, for a model whose plain loss is ``loss``, a key of
    `nnlib.models.functions.LOSSES`.

    Raises `ConfigError` where they do not fit.
    """
    if train.loss == "huber":
        if loss != "linear":
            raise ConfigError("huber is for numeric targets, these are classes", key="train.loss", hint="auto")
        return partial(Huber, delta=train.huber_delta)
    if train.label_smoothing:
        if loss != "softmax":
            raise ConfigError(
                f"only the labels of a softmax can be smoothed, this model's output is {loss}",
                key="train.label_smoothing",
                hint="0, or model.output: softmax (classes)",
            )
        return partial(SmoothedSoftmax, smoothing=train.label_smoothing)
    return LOSSES[loss]
