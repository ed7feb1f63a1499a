"""The learner of models that numpy computes in place on flat vectors (`nnlib.models.protocol.NumpyModel`)."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import numpy.typing as npt

from nnlib.config.kinds import OPTIMIZERS
from nnlib.core import numerics
from nnlib.core.arrays import Array, Vector
from nnlib.core.exact_sum import exact_sum
from nnlib.core.layout import ModelState, aligned_empty
from nnlib.data.batches import Batch
from nnlib.models.protocol import BoundModel, Model, NumpyModel
from nnlib.models.training_losses import training_loss
from nnlib.optim import BatchOptimizer, StepOptimizer, build_optimizer
from nnlib.training.learner import Trained, TrainingSetup
from nnlib.training.optimizer_steps import OptimizerSteps
from nnlib.training.round_batches import RoundBatches
from nnlib.training.scores import Score


def build(model: Model, setup: TrainingSetup | None) -> NumpyLearner:
    """Build the learner that fits the optimizer; without ``setup`` one that only scores."""
    model = cast(NumpyModel, model)
    if setup is None:
        return NumpyLearner(model)
    optimizer = build_optimizer(setup.config.train, model.layout)
    if optimizer.minimizes:
        return MinimizingLearner(model, setup, optimizer)
    return SteppingLearner(model, setup, optimizer)


class NumpyLearner:
    """Weights that score and predict. ``flat`` holds them, shape (model.layout.size,)."""

    trains_whole_rounds = False
    averages_gradients = False

    def __init__(self, model: NumpyModel) -> None:
        self.layout = model.layout
        self.flat = np.empty(0, model.layout.dtype)
        self._model = model
        self._scoring: BoundModel | None = None
        self._scoring_rows = 0

    def numerics(self) -> str:
        """See `nnlib.training.learner.Learner.numerics`."""
        return numerics.fingerprint()

    def prepare(self) -> None:
        """See `nnlib.training.learner.Learner.prepare`."""

    def load(self, state: ModelState) -> None:
        """See `nnlib.training.learner.Learner.load`. Models of numpy have no buffers."""
        if not self.flat.size:
            self.flat = aligned_empty(self.layout.size, self.layout.dtype)
        self.flat[:] = state.vector[: self.layout.size]

    def train(self, batches: RoundBatches, epochs: range) -> Trained:
        """See `nnlib.training.learner.Learner.train`."""
        raise ValueError("built without a training setup: this learner can only score")

    def state(self) -> ModelState:
        """See `nnlib.training.learner.Learner.state`."""
        return ModelState(self.flat.copy())

    def optimizer_state(self) -> Vector:
        """See `nnlib.training.learner.Learner.optimizer_state`."""
        return np.empty(0, self.layout.dtype)

    def score(self, batch: Batch, score: Score) -> None:
        """See `nnlib.training.learner.Learner.score`."""
        with np.errstate(all="ignore"):  # a model that diverged scores NaN
            score.add(*self._scorer(len(batch.y)).score(batch.x, batch.y), batch.y)

    def outputs(self, x: Array) -> Array:
        """See `nnlib.training.learner.Learner.outputs`."""
        return self._scorer(len(x)).outputs(x)

    def outputs_and_losses(self, x: Array, y: Array) -> tuple[Array, npt.NDArray[np.float64]]:
        """See `nnlib.training.learner.Learner.outputs_and_losses`."""
        return self._scorer(len(x)).score(x, y)

    def _scorer(self, rows: int) -> BoundModel:
        if self._scoring is None or rows > self._scoring_rows:
            self._scoring, self._scoring_rows = self._model.bind(self.flat, None, rows), rows
        return self._scoring


class _TrainingLearner(NumpyLearner):
    """What both ways of training share: the gradient, the L2 term's factor, the weights of classes."""

    def __init__(self, model: NumpyModel, setup: TrainingSetup) -> None:
        super().__init__(model)
        self._setup = setup
        self._decay = setup.decay
        self._loss = training_loss(setup.config.train, model.loss)
        self._gradient = np.empty(0, model.layout.dtype)
        self._training: BoundModel | None = None
        self._training_rows = 0
        weights = setup.trial.class_weights
        self._class_weights = None if weights is None else np.asarray(weights, model.layout.dtype)

    def prepare(self) -> None:
        OPTIMIZERS.of(self._setup.config.train).load_packages()

    def _loss_and_gradient(self, batch: Batch) -> float:
        """The mean loss over a batch; its gradient goes into ``_gradient``."""
        rows = len(batch.y)
        if self._training is None or rows > self._training_rows:
            if not self._gradient.size:
                self._gradient = aligned_empty(self.layout.size, self.layout.dtype)
            self._training = self._model.bind(self.flat, self._gradient, rows, self._loss)
            self._training_rows = rows
        row_weights = None if self._class_weights is None else self._class_weights[batch.y]
        return self._training.loss_and_gradient(batch.x, batch.y, row_weights)


class SteppingLearner(_TrainingLearner):
    """Trains by a step of the optimizer on every mini-batch."""

    averages_gradients = True

    def __init__(self, model: NumpyModel, setup: TrainingSetup, optimizer: StepOptimizer) -> None:
        super().__init__(model, setup)
        self._steps = OptimizerSteps(setup, optimizer)
        self._total = np.empty(0, model.layout.dtype)

    def load(self, state: ModelState) -> None:
        super().load(state)
        self._steps.load(state.vector[self.layout.size :])

    def train(self, batches: RoundBatches, epochs: range) -> Trained:
        (epoch,) = epochs
        steps, total = batches.steps, 0.0
        with np.errstate(all="ignore"):  # divergence shows in the loss and the weights
            for step, batch in enumerate(batches.epoch(epoch)):
                total += self._step_gradient(batch) * len(batch.y)
                self._steps.take(self.flat, self._gradient, self._steps.rate(epoch, step, steps))
        return Trained(total / batches.rows)

    def gradient(self, batch: Batch, epoch: int, step: int) -> tuple[float, Vector]:
        """See `nnlib.training.learner.GradientLearner.gradient`."""
        with np.errstate(all="ignore"):
            loss = self._step_gradient(batch)
        return loss, self._gradient

    def apply(self, mean: Vector, lr: float) -> None:
        """See `nnlib.training.learner.GradientLearner.apply`."""
        if not self._gradient.size:  # a worker without rows in the first step
            self._gradient = aligned_empty(self.layout.size, self.layout.dtype)
        self._gradient[:] = mean
        with np.errstate(all="ignore"):
            self._steps.take(self.flat, self._gradient, lr)

    def state(self) -> ModelState:
        if self._setup.layout.size == self.layout.size:
            return super().state()
        return ModelState(np.concatenate([self.flat, self._steps.state()]))

    def optimizer_state(self) -> Vector:
        return self._steps.state()

    def _step_gradient(self, batch: Batch) -> float:
        """The mean loss over the rows of a step, computed `train.micro_batch` rows at once; its gradient goes into
        ``_gradient``."""
        rows, part_rows = len(batch.y), self._setup.config.train.micro_batch
        if part_rows is None or rows <= part_rows:
            return self._loss_and_gradient(batch)
        if not self._total.size:
            self._total = aligned_empty(self.layout.size, self.layout.dtype)
        self._total.fill(0.0)
        losses = []
        for part in batch.parts(part_rows):
            fraction = len(part.y) / rows
            losses.append(fraction * self._loss_and_gradient(part))
            np.multiply(self._gradient, fraction, out=self._gradient)
            np.add(self._total, self._gradient, out=self._total)
        self._gradient[:] = self._total
        return exact_sum(losses)


class MinimizingLearner(_TrainingLearner):
    """Trains by minimizing over the whole sample: the mean loss + decay/2 * sum of squared weights (Bishop 2006, eq.
    5.112), summed over fixed chunks in float64. One iteration counts as one epoch."""

    trains_whole_rounds = True

    def __init__(self, model: NumpyModel, setup: TrainingSetup, optimizer: BatchOptimizer) -> None:
        super().__init__(model, setup)
        self._optimizer = optimizer
        self._decayed = model.layout.decayed_ranges(setup.config.train.decay)

    def train(self, batches: RoundBatches, epochs: range) -> Trained:
        total = np.empty(self.layout.size, np.float64)

        def objective(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            return self._objective(batches, point, total), total.copy()

        with np.errstate(all="ignore"):  # divergence shows in the loss and the weights
            minimum = self._optimizer.minimize(objective, self.flat.astype(np.float64), len(epochs))
            self.flat[:] = minimum.point
        return Trained(minimum.loss, minimum.evaluations)

    def _objective(
        self, batches: RoundBatches, point: npt.NDArray[np.float64], total: npt.NDArray[np.float64]
    ) -> float:
        """The objective at a point; its gradient goes into ``total``."""
        self.flat[:] = point
        total[:] = 0.0
        losses = []
        for chunk in batches.chunks():
            fraction = len(chunk.y) / batches.rows
            losses.append(fraction * self._loss_and_gradient(chunk))
            gradient = self._gradient
            np.add(total, gradient if fraction == 1.0 else fraction * gradient.astype(np.float64), total)
        loss = math.fsum(losses)
        if self._decay:
            for part in self._decayed:
                loss += 0.5 * self._decay * float(np.dot(point[part], point[part]))
                total[part] += self._decay * point[part]
        return loss
