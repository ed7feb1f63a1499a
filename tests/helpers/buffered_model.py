"""A perceptron with buffers: it centres its features by a running mean, and counts the batches of its training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnlib.config.options import MLPOptions
from nnlib.config.schema import Model as ModelConfig
from nnlib.config.section import options_of
from nnlib.core.arrays import Array, Vector
from nnlib.core.entries import buffer
from nnlib.core.layout import Layout, ModelState
from nnlib.data.batches import Batch
from nnlib.models.mlp import MLP
from nnlib.optim import build_optimizer
from nnlib.training.learner import TrainingSetup
from nnlib.training.numpy_learner import NumpyLearner, SteppingLearner
from nnlib.training.scores import Score

LARGE = 2**53 + 1
"""Where the count of batches begins: no float64 holds this number."""
MOMENTUM = 0.2


class BufferedMLP(MLP):
    """`MLP` with a running mean (by the mean), a count (by the maximum) and a mask of features (to be kept)."""

    learner = "buffered_model:build_learner"

    def __init__(self, widths: list[int], **names: str) -> None:
        super().__init__(widths, **names)
        self.layout = Layout.build(
            [
                *self.layout.entries,
                buffer("features.mean", (widths[0],), "float32", "mean"),
                buffer("features.batches", (), "int64", "max"),
                buffer("features.used", (widths[0],), "bool", "keep"),
            ],
            self.layout.dtype,
        )

    def initial_buffers(self, rng: np.random.Generator) -> tuple[Vector, ...]:
        buffers = self.layout.zero_buffers()
        views = self.layout.buffer_views(buffers)
        views["features.batches"][...] = LARGE
        views["features.used"][1:] = True
        return buffers


def build(config: ModelConfig, *, shape: tuple[int, ...], outputs: int, loss: str) -> BufferedMLP:
    options = options_of(config, MLPOptions)
    widths = [math.prod(shape), *options.hidden, outputs]
    return BufferedMLP(widths, activation=options.activation, loss=loss, init=options.init, dtype=config.dtype)


def build_learner(model: Any, setup: TrainingSetup | None) -> NumpyLearner:
    if setup is None:
        return Scoring(model)
    optimizer: Any = build_optimizer(setup.config.train, model.layout)
    return Training(model, setup, optimizer)


class Scoring(NumpyLearner):
    buffers: tuple[Vector, ...]

    def load(self, state: ModelState) -> None:
        super().load(state)
        self.buffers = tuple(vector.copy() for vector in state.buffers)
        self.views = self.layout.buffer_views(self.buffers)

    def state(self) -> ModelState:
        return ModelState(super().state().vector, tuple(vector.copy() for vector in self.buffers))

    def centred(self, x: Array) -> Array:
        centred: Array = (x - self.views["features.mean"].astype(x.dtype)) * self.views["features.used"]
        return centred.astype(x.dtype)

    def score(self, batch: Batch, score: Score) -> None:
        super().score(batch._replace(x=self.centred(batch.x)), score)

    def outputs(self, x: Array) -> Array:
        return super().outputs(self.centred(x))

    def outputs_and_losses(self, x: Array, y: Array) -> Any:
        return super().outputs_and_losses(self.centred(x), y)


class Training(Scoring, SteppingLearner):
    def _loss_and_gradient(self, batch: Batch) -> float:
        mean = self.views["features.mean"]
        mean += (MOMENTUM * (batch.x.mean(axis=0, dtype=np.float64) - mean)).astype(mean.dtype)
        self.views["features.batches"] += 1
        return super()._loss_and_gradient(batch._replace(x=self.centred(batch.x)))
