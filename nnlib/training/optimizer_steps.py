"""The steps of a local optimizer, as every learner takes them that trains by steps."""

from __future__ import annotations

from nnlib.core.arrays import Vector
from nnlib.optim import StepOptimizer, learning_rate
from nnlib.optim.clipping import clip_norm
from nnlib.training.learner import TrainingSetup


class OptimizerSteps:
    """An optimizer at work: it starts from a loaded state, clips gradients (`train.clip_norm`), adds the L2 term."""

    def __init__(self, setup: TrainingSetup, optimizer: StepOptimizer) -> None:
        self._train, self._decay, self._optimizer = setup.config.train, setup.decay, optimizer
        self._rate: tuple[int, float] | None = None
        self._loaded: Vector | None = None
        """The state to begin with; empty: a fresh one; None: that which the optimizer has."""

    def load(self, state: Vector) -> None:
        """Take over a state that `state` has returned; shape (0,): start afresh. Copies it, but only into memory of its
        own: the optimizer gets it with the first step, for scoring needs none."""
        self._loaded = state.copy()

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Return the learning rate: see `nnlib.optim.schedules.learning_rate`."""
        if self._train.schedule.by == "step" or self._rate is None or self._rate[0] != epoch:
            self._rate = epoch, learning_rate(self._train, epoch, step, steps)
        return self._rate[1]

    def take(self, flat: Vector, gradient: Vector, lr: float) -> None:
        """Take a step from ``flat``, in place, on the gradient of the data's mean loss, which is used as scratch; both
        have the shape (size of the model's layout,)."""
        self._restore()
        if self._train.clip_norm is not None:
            clip_norm(gradient, self._train.clip_norm)
        self._optimizer.step(flat, gradient, lr, self._decay)

    def state(self) -> Vector:
        """Copy the optimizer's state into a new vector."""
        self._restore()
        return self._optimizer.state.copy()

    def _restore(self) -> None:
        if self._loaded is None:
            return
        if self._loaded.size:
            self._optimizer.state[:] = self._loaded
        else:
            self._optimizer.reset()
        self._loaded = None
