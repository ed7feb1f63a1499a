"""The learner of torch modules, on the CPU: forward and backward by torch, steps by our optimizers on the same memory.

Whatever a module draws in training (dropout) follows from the seed of its step, which is keyed by epoch, worker and
step: a retried task, another runner or an interleaved group draws the same.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nnlib.core.arrays import Array, Vector
from nnlib.core.errors import ConfigError
from nnlib.core.exact_sum import exact_sum
from nnlib.core.layout import ModelState
from nnlib.core.seeds import Purpose, hash_key, row_hash
from nnlib.data.batches import Batch
from nnlib.models.functions import LOSSES
from nnlib.torch.binding import BoundModule
from nnlib.torch.fingerprint import fingerprint
from nnlib.torch.losses import TrainingLoss
from nnlib.torch.model import TorchModel
from nnlib.torch.random_state import restored_random_state
from nnlib.training.learner import Trained, TrainingSetup
from nnlib.training.optimizer_steps import OptimizerSteps
from nnlib.training.round_batches import RoundBatches
from nnlib.training.scores import Score

SCORE_ROWS = 128
"""Rows of a forward pass in scoring. Another number could change bits; more rows would leave the processor's cache."""


class TorchLearner:
    """A module that scores and predicts. See `nnlib.training.learner.Learner`."""

    trains_whole_rounds = False
    averages_gradients = False

    def __init__(self, model: TorchModel) -> None:
        self.model, self.layout = model, model.layout
        self._bound: BoundModule | None = None

    @property
    def bound(self) -> BoundModule:
        """The module and its numbers, made at the first use."""
        if self._bound is None:
            self._bound = BoundModule(self.model.build_module(), self.layout)
        return self._bound

    def numerics(self) -> str:
        """See `nnlib.training.learner.Learner.numerics`."""
        return fingerprint()

    def prepare(self) -> None:
        """See `nnlib.training.learner.Learner.prepare`: torch is imported with this module."""

    def load(self, state: ModelState) -> None:
        """See `nnlib.training.learner.Learner.load`."""
        self.bound.load(state.vector, state.buffers)

    def trained_module(self) -> nn.Module:
        """Return the module with the numbers that were loaded, in evaluation mode."""
        return self.bound.module.eval()

    def train(self, batches: RoundBatches, epochs: range) -> Trained:
        """See `nnlib.training.learner.Learner.train`."""
        raise ValueError("built without a training setup: this learner can only score")

    def state(self) -> ModelState:
        """See `nnlib.training.learner.Learner.state`."""
        return ModelState(self.bound.flat.copy(), self.bound.buffers())

    def optimizer_state(self) -> Vector:
        """See `nnlib.training.learner.Learner.optimizer_state`."""
        return np.empty(0, self.layout.dtype)

    def score(self, batch: Batch, score: Score) -> None:
        """See `nnlib.training.learner.Learner.score`."""
        with np.errstate(all="ignore"):  # a model that diverged scores NaN
            score.add(*self.outputs_and_losses(batch.x, batch.y), batch.y)

    def outputs(self, x: Array) -> Array:
        """See `nnlib.training.learner.Learner.outputs`."""
        z = self._forward(x)
        LOSSES[self.model.loss](len(z), self.model.outputs, self.layout.dtype).predict(z)
        return z

    def outputs_and_losses(self, x: Array, y: Array) -> tuple[Array, npt.NDArray[np.float64]]:
        """See `nnlib.training.learner.Learner.outputs_and_losses`."""
        z = self._forward(x)
        loss = LOSSES[self.model.loss](len(z), self.model.outputs, self.layout.dtype)
        losses = loss.losses(z.astype(np.float64), y)
        loss.predict(z)
        return z, losses

    def _forward(self, x: Array) -> Array:
        """The module's outputs for rows x (b, features), shape (b, outputs), before the loss's function."""
        z = np.empty((len(x), self.model.outputs), self.layout.dtype)
        module = self.bound.module.eval()
        with torch.inference_mode():
            for start in range(0, len(x), SCORE_ROWS):
                z[start : start + SCORE_ROWS] = module(self._rows(x[start : start + SCORE_ROWS])).numpy()
        return z

    def _rows(self, x: Array) -> torch.Tensor:
        """Rows (b, features) as the module takes them, on the same memory where that may be written to."""
        rows = torch.from_numpy(x if x.flags.writeable else x.copy())
        return rows.view(len(x), *self.model.shape)


class TrainingTorchLearner(TorchLearner):
    """A module that trains by steps of one of our optimizers. See `nnlib.training.learner.GradientLearner`."""

    averages_gradients = True

    device = "cpu"
    """How torch calls the kind of device that computes."""

    def __init__(self, model: TorchModel, setup: TrainingSetup, steps: OptimizerSteps) -> None:
        super().__init__(model)
        self._setup, self._steps = setup, steps
        self._loss = TrainingLoss(setup.config.train, model.loss)
        self._loaded_buffers: tuple[Vector, ...] = ()
        weights = setup.trial.class_weights
        self._class_weights = None if weights is None else torch.tensor(weights, dtype=getattr(torch, model.dtype))
        self._keys: dict[int, tuple[int, int]] = {}

    def load(self, state: ModelState) -> None:
        super().load(state)
        self._steps.load(state.vector[self.layout.size :])
        self._loaded_buffers = state.buffers

    def train(self, batches: RoundBatches, epochs: range) -> Trained:
        (epoch,) = epochs
        steps, total = batches.steps, 0.0
        with restored_random_state(), np.errstate(all="ignore"):  # divergence shows in the loss and the weights
            for step, batch in enumerate(batches.epoch(epoch)):
                total += self._loss_and_gradient(batch, epoch, step) * len(batch.y)
                self._steps.take(self.bound.flat, self.bound.gradient, self._steps.rate(epoch, step, steps))
                self.bound.follow()
        return Trained(total / batches.rows)

    def gradient(self, batch: Batch, epoch: int, step: int) -> tuple[float, Vector]:
        """See `nnlib.training.learner.GradientLearner.gradient`."""
        with restored_random_state():
            loss = self._loss_and_gradient(batch, epoch, step)
        return loss, self.bound.gradient

    def apply(self, mean: Vector, lr: float) -> None:
        """See `nnlib.training.learner.GradientLearner.apply`."""
        self._bind_gradient()
        self.bound.gradient[:] = mean
        with np.errstate(all="ignore"):
            self._steps.take(self.bound.flat, self.bound.gradient, lr)
        self.bound.follow()

    def state(self) -> ModelState:
        """See `nnlib.training.learner.Learner.state`. Raises `ConfigError` where training changed a buffer that is not
        averaged."""
        return self._trained_state(self.bound.module, self.bound.flat.copy(), self.bound.buffers())

    def optimizer_state(self) -> Vector:
        return self._steps.state()

    def _loss_and_gradient(self, batch: Batch, epoch: int, step: int) -> float:
        """The mean loss over the rows of a step, computed `train.micro_batch` rows at once; its gradient goes into the
        bound gradient vector."""
        self._bind_gradient()
        self.bound.clear_gradient()
        torch.default_generator.manual_seed(self._seed(epoch, step))
        rows, module = len(batch.y), self.bound.module.train()
        parts = batch.parts(self._setup.config.train.micro_batch or rows)
        losses = [
            self._add_gradient(module, self._rows(part.x), torch.from_numpy(part.y), rows).item() for part in parts
        ]
        self.bound.collect_gradient()
        return exact_sum(losses)

    def _trained_state(self, module: nn.Module, vector: Vector, buffers: tuple[Vector, ...]) -> ModelState:
        """Join what a module has after its training: its parameters, which this keeps, the optimizer's averaged state
        behind them, and its buffers. Raises `ConfigError` where training changed what must stay."""
        self._check_kept_buffers(buffers)
        self.model.check_frozen(module)
        if self._setup.layout.size > self.layout.size:
            vector = np.concatenate([vector, self._steps.state()])
        return ModelState(vector, buffers)

    def _add_gradient(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor, rows: int) -> torch.Tensor:
        """Add to the gradient what a part of a step of ``rows`` rows contributes: ``x`` as the module takes it, and its
        targets. Returns its part of the mean loss."""
        with self._precision():
            output = self._output(module, x)
        z = output.to(getattr(torch, self.model.dtype))
        weights = None if self._class_weights is None else self._class_weights[y]
        loss = self._loss.mean(z, y, weights, rows)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _output(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """What the module makes of rows in training. Raises `ConfigError` where it fails."""
        try:
            output: object = module(x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise self.model.failure(error, len(x)) from error
        return self.model.check_output(output, len(x))

    def _precision(self) -> AbstractContextManager[object]:
        """The precision of a forward pass, whose backward pass has the same."""
        if self._setup.config.train.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def _bind_gradient(self) -> None:
        if not self.bound.gradient.size:
            self.bound.bind_gradient()

    def _seed(self, epoch: int, step: int) -> int:
        """The seed of what the module draws in a step."""
        if epoch not in self._keys:
            config, trial = self._setup.config, self._setup.trial
            worker = self._setup.worker if config.sampling.streams == "independent" else 0
            key = hash_key(config.seed, Purpose.MODULE, split=trial.split, fold=trial.fold, epoch=epoch, worker=worker)
            self._keys = {epoch: key}
        return int(row_hash(np.array([step]), self._keys[epoch])[0])

    def _check_kept_buffers(self, buffers: tuple[Vector, ...]) -> None:
        for segment, before, after in zip(self.layout.buffers, self._loaded_buffers, buffers, strict=True):
            if segment.rule == "keep" and not np.array_equal(before, after):
                changed = int(np.flatnonzero(before != after)[0])
                raise ConfigError(
                    f"training changed the buffer {segment.entry_at(changed).name}, whose {segment.dtype} values have "
                    "no average",
                    hint="make it a floating buffer, name a counter num_batches_tracked, or register it with "
                    "persistent=False",
                    key="model.factory",
                )
