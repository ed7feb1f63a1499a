"""What a worker does with a model, whatever computes it: load, train, average gradients, score.

A model names its learner (`nnlib.models.protocol.Model.learner`), so a new kind is one file and the line that names its
model. Rounds, all-reduce, scoring and prediction know only the protocols of this module. Vectors on the host
cross them at a round's edge (`Learner.load`, `Learner.state`) and, where gradients are averaged, at a step's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from nnlib.config.schema import Config
from nnlib.core.arrays import Array, Vector
from nnlib.core.errors import ConfigError
from nnlib.core.layout import Layout, ModelState
from nnlib.data.batches import Batch
from nnlib.data.feature_converter import Converter
from nnlib.models.protocol import Model
from nnlib.run.spec import Trial
from nnlib.training.round_batches import RoundBatches
from nnlib.training.scores import Score


@dataclass(frozen=True)
class TrainingSetup:
    """What a learner needs for training, besides its model.

    ``config`` is the trial's. ``worker``, the trial's split and fold, and the epoch key whatever a learner draws at
    random. ``layout`` is that of `Learner.load` and `Learner.state`: the model's, and behind it the optimizer's state
    where that is averaged. ``converter``: converts the features of the rows that the learner gets, which are as they
    are stored; None: they are converted.
    """

    config: Config
    trial: Trial
    worker: int
    layout: Layout
    converter: Converter | None = None

    @property
    def decay(self) -> float:
        """lambda / m, the factor of a weight in the gradient of the L2 term."""
        return self.config.train.l2 / self.trial.objective_rows


class Trained(NamedTuple):
    """What a call of `Learner.train` reached: the mean loss over the rows (with the L2 term where the optimizer
    minimizes), and how often a minimizing optimizer evaluated its objective."""

    loss: float
    evaluations: int = 0


class Learner(Protocol):
    """A model with its numbers and its local optimizer. Serves one thread at a time.

    ``x`` has shape (b, features) in the model's dtype, C order; ``y`` has shape (b,): class indices, or targets, which
    are scaled where the trial scales them: `TargetLearner` does that around a learner of any kind.
    """

    @property
    def trains_whole_rounds(self) -> bool:
        """Whether `train` takes a round's epochs together, as optimizers do that minimize over the whole sample."""
        ...

    @property
    def averages_gradients(self) -> bool:
        """Whether this is a `GradientLearner` too: its steps can be taken on a mean gradient."""
        ...

    def numerics(self) -> str:
        """Return the fingerprint of the bits that the libraries behind this learner compute here: see
        `nnlib.core.numerics.fingerprint`."""
        ...

    def prepare(self) -> None:
        """Import what training needs. May be called early, in another thread, while the worker waits for others."""
        ...

    def load(self, state: ModelState) -> None:
        """Take over a model: a copy of its vector, which begins with the weights, and of its buffers.

        An optimizer state behind the weights is taken over too; without one the optimizer starts afresh.
        """
        ...

    def train(self, batches: RoundBatches, epochs: range) -> Trained:
        """Train on a round's rows: one global epoch, or all of a round's where the learner `trains_whole_rounds`.

        A loss that is not finite is returned, not raised.
        """
        ...

    def state(self) -> ModelState:
        """Copy the model, with an averaged optimizer state, into new vectors of `TrainingSetup.layout`."""
        ...

    def optimizer_state(self) -> Vector:
        """Copy the local optimizer's state into a new vector, which `load` takes over behind the weights; shape (0,)
        where it has none."""
        ...

    def score(self, batch: Batch, score: Score) -> None:
        """Score rows and add what they count to ``score``; outputs stay here. Not finite is no error."""
        ...

    def outputs(self, x: Array) -> Array:
        """Compute probabilities or values, shape (b, outputs). Valid until the next call."""
        ...

    def outputs_and_losses(self, x: Array, y: Array) -> tuple[Array, npt.NDArray[np.float64]]:
        """Compute `outputs` and each row's loss, shape (b,), in one pass."""
        ...


class GradientLearner(Learner, Protocol):
    """A learner whose single steps are taken from outside, on a gradient that workers average."""

    def gradient(self, batch: Batch, epoch: int, step: int) -> tuple[float, Vector]:
        """Compute the mean loss over a batch and its gradient without the L2 term, shape (model.layout.size,).

        ``epoch`` and ``step`` (of the epoch) key what the model draws at random. The vector is used again by the next
        call.
        """
        ...

    def apply(self, mean: Vector, lr: float) -> None:
        """Take a step of the optimizer at rate ``lr`` on a mean gradient, shape (model.layout.size,); adds the L2
        term."""
        ...


class LearnerFactory(Protocol):
    """Builds a learner of a model. Without a setup it scores and predicts only."""

    def __call__(self, model: Model, setup: TrainingSetup | None) -> Learner:
        """Build a learner of ``model``; it takes memory when numbers are loaded."""
        ...


def gradient_learner(learner: Learner) -> GradientLearner:
    """The learner, where its gradients can be averaged. Raises `ConfigError` where not."""
    if not learner.averages_gradients:
        raise ConfigError("this optimizer takes no steps on averaged gradients", key="sync.every")
    return cast(GradientLearner, learner)
