"""A learner that trains a sub-net of its model (`train.subnets`), and scores the whole."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt

from nnlib.config.schema import Config
from nnlib.core.arrays import Array, BoolArray, FloatArray, Vector
from nnlib.core.layout import ModelState
from nnlib.core.partition import Partition, Subnet
from nnlib.data.batches import Batch
from nnlib.models.protocol import DivisibleModel, Model, SubnetModel
from nnlib.training.learner import Learner, Trained, TrainingSetup
from nnlib.training.round_batches import RoundBatches
from nnlib.training.scores import Score

LearnerBuilder = Callable[[Model, TrainingSetup | None], Learner]
"""Builds the learner of a model: with a setup one that trains, without one that only scores."""


def has_subnets(config: Config) -> bool:
    """Return whether workers train sub-nets, not the whole net."""
    return config.train.subnets is not None and config.train.subnets.partition is not None


def subnet_trained(config: Config, worker: int, epoch: int) -> Subnet | None:
    """Return the sub-net that a worker trains in the round whose first global epoch is ``epoch``; None: the whole."""
    subnets, length = config.train.subnets, config.train.epochs_per_round
    if subnets is None or subnets.partition is None or length == "auto":
        return None
    return Partition.parse(subnets.partition).subnet_of(subnets.alternate, worker, epoch // length)


def numbers_held(model: Model, config: Config, worker: int, epoch: int) -> BoolArray | None:
    """Return which numbers of the model's flat vector a worker trains in the round whose first global epoch is
    ``epoch``, shape (model.layout.size,); None: all."""
    subnet = subnet_trained(config, worker, epoch)
    if subnet is None:
        return None
    held = np.zeros(model.layout.size, np.bool_)
    held[_divided(cast(Hashable, model), str(_partition(config)), subnet).positions] = True
    if config.train.subnets is not None and config.train.subnets.between == "zero":
        held |= _left_out(cast(Hashable, model), str(_partition(config)))
    return held


def _partition(config: Config) -> Partition:
    assert config.train.subnets is not None
    assert config.train.subnets.partition is not None
    return Partition.parse(config.train.subnets.partition)


@lru_cache(maxsize=64)  # inline, four workers of a trial follow each other, and then its reducer
def _divided(model: Hashable, partition: str, subnet: Subnet) -> SubnetModel:
    return cast(DivisibleModel, model).subnet(Partition.parse(partition).units(subnet))


@lru_cache(maxsize=16)
def _left_out(model: Hashable, partition: str) -> BoolArray:
    """Which numbers no sub-net of shift 0 holds: the weights between groups, shape (model.layout.size,)."""
    left_out = np.ones(cast(DivisibleModel, model).layout.size, np.bool_)
    for subnet in Partition.parse(partition).subnets(0):
        left_out[_divided(model, partition, subnet).positions] = False
    return left_out


def _of_last_layer(divided: SubnetModel) -> FloatArray:
    """`SubnetModel.factor` of the weights to the outputs; 1 for all other numbers."""
    last = [entry for entry in divided.model.layout.entries if len(entry.shape) > 1][-1]
    factor = np.ones_like(divided.factor)
    factor[last.range] = divided.factor[last.range]
    return factor


class SubnetLearner:
    """Trains the sub-net that a worker has in a round: gathers its numbers from the whole model's, trains them with a
    learner of their own, scatters them back. Scores and predictions are those of the whole model.

    With ``train.subnets.rescale`` weights of hidden units' outputs are multiplied by `SubnetModel.factor` when they are
    gathered, and divided by it when they are scattered: a unit then gets as much from a part of the units below it
    as from all. With ``train.subnets.between: zero`` the weights between groups are 0 afterwards, and only those to the
    outputs are multiplied: then the whole net's outputs before the loss's function are the mean of the sub-nets'.
    """

    averages_gradients = False

    def __init__(self, model: Model, setup: TrainingSetup, build: LearnerBuilder) -> None:
        """``build`` makes the learners, of the whole model and of the sub-net."""
        self._model, self._setup, self._build = cast(DivisibleModel, model), setup, build
        self._whole = build(model, None)
        self._part: tuple[Subnet, SubnetModel, Learner] | None = None
        self._state: ModelState | None = None
        self._trained = False
        train = setup.config.train
        self.trains_whole_rounds = build(model, setup).trains_whole_rounds
        assert train.subnets is not None
        self._rescales, self._drops = train.subnets.rescale, train.subnets.between == "zero"

    def numerics(self) -> str:
        """See `nnlib.training.learner.Learner.numerics`."""
        return self._whole.numerics()

    def prepare(self) -> None:
        """See `nnlib.training.learner.Learner.prepare`."""
        self._whole.prepare()

    def load(self, state: ModelState) -> None:
        """See `nnlib.training.learner.Learner.load`."""
        self._state, self._trained = state, False
        self._whole.load(state)

    def train(self, batches: RoundBatches, epochs: range) -> Trained:
        """See `nnlib.training.learner.Learner.train`. The first epoch after `load` decides the sub-net."""
        if not self._trained:
            self._gather(epochs.start)
            self._trained = True
        assert self._part is not None
        return self._part[2].train(batches, epochs)

    def state(self) -> ModelState:
        """See `nnlib.training.learner.Learner.state`. What the sub-net does not hold is as it was loaded."""
        assert self._state is not None
        if not self._trained or self._part is None:
            return self._whole.state()
        _, (_, positions, factor), learner = self._part
        vector = self._state.vector.copy()
        if self._drops:
            vector[_left_out(cast(Hashable, self._model), str(_partition(self._setup.config)))] = 0.0
        trained = learner.state().vector
        vector[positions] = (trained / factor).astype(vector.dtype) if self._rescales else trained
        return ModelState(vector)

    def optimizer_state(self) -> Vector:
        """See `nnlib.training.learner.Learner.optimizer_state`: of a sub-net none is kept."""
        return np.empty(0, self._model.layout.dtype)

    def score(self, batch: Batch, score: Score) -> None:
        """See `nnlib.training.learner.Learner.score`."""
        self._whole.score(batch, score)

    def outputs(self, x: Array) -> Array:
        """See `nnlib.training.learner.Learner.outputs`."""
        return self._whole.outputs(x)

    def outputs_and_losses(self, x: Array, y: Array) -> tuple[Array, npt.NDArray[np.float64]]:
        """See `nnlib.training.learner.Learner.outputs_and_losses`."""
        return self._whole.outputs_and_losses(x, y)

    def _gather(self, epoch: int) -> None:
        """Load the sub-net of the round that begins with ``epoch`` with its part of the whole model's numbers."""
        config, assigned = self._setup.config, subnet_trained(self._setup.config, self._setup.worker, epoch)
        assert assigned is not None
        assert self._state is not None
        if self._part is None or self._part[0] != assigned:
            divided = _divided(cast(Hashable, self._model), str(_partition(config)), assigned)
            if self._drops:
                divided = divided._replace(factor=_of_last_layer(divided))
            setup = replace(self._setup, layout=divided.model.layout)
            self._part = assigned, divided, self._build(divided.model, setup)
        _, (_, positions, factor), learner = self._part
        vector = self._state.vector[positions]
        learner.load(ModelState((vector * factor).astype(vector.dtype) if self._rescales else vector))
