"""A learner whose model was trained on scaled targets, in the target's own units."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array, Vector
from nnlib.core.layout import ModelState
from nnlib.data.batches import Batch
from nnlib.data.target_scaling import TargetScaler
from nnlib.training.learner import Learner, Trained, gradient_learner
from nnlib.training.round_batches import RoundBatches
from nnlib.training.scores import Score


class TargetLearner:
    """Wraps a learner of any kind: it trains and computes in scaled targets, outputs and losses are in their own units.

    Batches to train on come with scaled targets (`nnlib.training.round_batches`), those to score with their own. A loss
    in own units is the scaled one times ``spread ** 2``, with the L2 term of an optimizer that minimizes.
    """

    def __init__(self, learner: Learner, target: TargetScaler) -> None:
        self._learner, self._target = learner, target

    @property
    def trains_whole_rounds(self) -> bool:
        """See `nnlib.training.learner.Learner.trains_whole_rounds`."""
        return self._learner.trains_whole_rounds

    @property
    def averages_gradients(self) -> bool:
        """See `nnlib.training.learner.Learner.averages_gradients`."""
        return self._learner.averages_gradients

    def numerics(self) -> str:
        """See `nnlib.training.learner.Learner.numerics`."""
        return self._learner.numerics()

    def prepare(self) -> None:
        """See `nnlib.training.learner.Learner.prepare`."""
        self._learner.prepare()

    def load(self, state: ModelState) -> None:
        """See `nnlib.training.learner.Learner.load`."""
        self._learner.load(state)

    def train(self, batches: RoundBatches, epochs: range) -> Trained:
        """See `nnlib.training.learner.Learner.train`."""
        trained = self._learner.train(batches, epochs)
        return trained._replace(loss=trained.loss * self._target.loss_factor)

    def state(self) -> ModelState:
        """See `nnlib.training.learner.Learner.state`."""
        return self._learner.state()

    def optimizer_state(self) -> Vector:
        """See `nnlib.training.learner.Learner.optimizer_state`."""
        return self._learner.optimizer_state()

    def score(self, batch: Batch, score: Score) -> None:
        """See `nnlib.training.learner.Learner.score`."""
        with np.errstate(all="ignore"):  # a model that diverged scores NaN
            score.add(*self.outputs_and_losses(batch.x, batch.y), batch.y)

    def outputs(self, x: Array) -> Array:
        """See `nnlib.training.learner.Learner.outputs`. float64."""
        return self._target.restore(self._learner.outputs(x))

    def outputs_and_losses(self, x: Array, y: Array) -> tuple[Array, npt.NDArray[np.float64]]:
        """See `nnlib.training.learner.Learner.outputs_and_losses`. float64."""
        outputs, losses = self._learner.outputs_and_losses(x, self._target.scale(y))
        return self._target.restore(outputs), losses * self._target.loss_factor

    def gradient(self, batch: Batch, epoch: int, step: int) -> tuple[float, Vector]:
        """See `nnlib.training.learner.GradientLearner.gradient`: of the scaled targets' loss."""
        loss, gradient = gradient_learner(self._learner).gradient(batch, epoch, step)
        return loss * self._target.loss_factor, gradient

    def apply(self, mean: Vector, lr: float) -> None:
        """See `nnlib.training.learner.GradientLearner.apply`."""
        gradient_learner(self._learner).apply(mean, lr)
