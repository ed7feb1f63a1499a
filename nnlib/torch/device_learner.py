"""The learner of torch modules on a device: parameters, gradients and the optimizer's state stay there.

Vectors of the host cross at a round's edge, and at a step's where gradients are averaged. Rows are sent ahead by a
thread, and losses are read when an epoch has ended, so the device need not wait for the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from nnlib.core.arrays import Array, Vector
from nnlib.core.errors import ConfigError
from nnlib.core.exact_sum import exact_sum
from nnlib.core.layout import ModelState
from nnlib.data.batches import Batch
from nnlib.optim import StepOptimizer
from nnlib.torch.device_binding import DeviceModule
from nnlib.torch.device_memory import is_out_of_memory, memory_error
from nnlib.torch.device_optimizer import DeviceSteps
from nnlib.torch.device_rows import DeviceRows, SentBatch
from nnlib.torch.devices import Device
from nnlib.torch.fingerprint import device_fingerprint
from nnlib.torch.learner import TrainingTorchLearner
from nnlib.torch.model import TorchModel
from nnlib.training.learner import Trained, TrainingSetup
from nnlib.training.round_batches import RoundBatches

NOT_REPEATABLE = "does not have a deterministic implementation"
"""What torch says of an operation whose bits do not repeat."""


class DeviceLearner(TrainingTorchLearner):
    """See `nnlib.training.learner.GradientLearner`; computes on ``device``."""

    def __init__(self, model: TorchModel, setup: TrainingSetup, optimizer: StepOptimizer, device: Device) -> None:
        self._device_steps = DeviceSteps(setup, optimizer, device)
        super().__init__(model, setup, self._device_steps)
        self.device = device.handle.type
        self._device = device
        self._rows_to_device = DeviceRows(device, setup.converter)
        self._on_device: DeviceModule | None = None
        self._strict = setup.config.runtime.numerics == "strict"

    @property
    def placed(self) -> DeviceModule:
        """The module and its numbers on the device, made at the first use."""
        if self._on_device is None:
            self._on_device = DeviceModule(self.model.build_module(), self.layout, self._device)
            if self._class_weights is not None:
                self._class_weights = self._class_weights.to(self._device.handle)
        return self._on_device

    def numerics(self) -> str:
        return device_fingerprint(self._device, strict=self._strict)

    def load(self, state: ModelState) -> None:
        with self._computing():
            self.placed.load(state.vector, state.buffers)
        self._steps.load(state.vector[self.layout.size :])
        self._loaded_buffers = state.buffers

    def train(self, batches: RoundBatches, epochs: range) -> Trained:
        (epoch,) = epochs
        steps, sizes = batches.steps, []
        losses: list[list[torch.Tensor]] = []
        with self._computing():
            for step, batch in enumerate(self._rows_to_device.ahead(batches.epoch(epoch))):
                losses.append(self._step_gradient(batch, epoch, step))
                sizes.append(len(batch.y))
                rate = self._steps.rate(epoch, step, steps)
                self._device_steps.take_on_device(self.placed.flat, self.placed.gradient, rate)
            total = 0.0
            for loss, rows in zip(_read(losses), sizes, strict=True):
                total += loss * rows
        return Trained(total / batches.rows)

    def gradient(self, batch: Batch, epoch: int, step: int) -> tuple[float, Vector]:
        with self._computing():
            (loss,) = _read([self._step_gradient(self._rows_to_device.send(batch), epoch, step)])
            return loss, self.placed.gradient.cpu().numpy()

    def apply(self, mean: Vector, lr: float) -> None:
        with self._computing():
            self.placed.gradient.copy_(torch.from_numpy(mean))
            self._device_steps.take_on_device(self.placed.flat, self.placed.gradient, lr)

    def state(self) -> ModelState:
        return self._trained_state(self.placed.module, self.placed.flat.cpu().numpy().copy(), self.placed.buffers())

    def _forward(self, x: Array) -> Array:
        """All rows at once: a device has no cache to spare."""
        module = self.placed.module.eval()
        with self._computing(), torch.inference_mode():
            outputs: Array = module(self._shaped(self._rows_to_device.send_features(x))).cpu().numpy()
        return outputs

    def _step_gradient(self, batch: SentBatch, epoch: int, step: int) -> list[torch.Tensor]:
        """Compute the gradient of a step's mean loss over a batch on the device. Returns the parts of the loss, which
        are still being computed."""
        self.placed.gradient.zero_()
        self._device.seed(self._seed(epoch, step))
        rows, module = len(batch.y), self.placed.module.train()
        return [
            self._add_gradient(module, self._shaped(part.x), part.y, rows)
            for part in batch.parts(self._setup.config.train.micro_batch or rows)
        ]

    def _output(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """What the module makes of rows in training. Its errors are the device's, see `_computing`."""
        output: torch.Tensor = module(x)
        return output

    def _shaped(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(len(x), *self.model.shape)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute in the block as `Device.computing`. Raises `JobError` where memory is short, and `ConfigError` where
        an operation has no repeatable form on the device."""
        try:
            with self._device.computing(strict=self._strict), np.errstate(all="ignore"):
                yield
            return
        except RuntimeError as error:
            text = str(error)
            if NOT_REPEATABLE in text:
                raise ConfigError(
                    f"on {self._device.kind} {text.partition(NOT_REPEATABLE)[0].strip()} gives other bits every time",
                    key="model.factory",
                    hint="use another operation; or set runtime.numerics to loose to give up equal bits",
                ) from error
            if not is_out_of_memory(error):
                raise
        # Outside the handler: the error holds the frames, and so the tensors, of the step that failed.
        raise memory_error(self._device, self._setup.config.train, self._try_step)

    def _try_step(self, rows: int) -> None:
        """Compute the gradient of a step of ``rows`` rows of zeros."""
        dtype = np.float64 if self.model.loss == "linear" else np.int64
        x = np.zeros((rows, int(np.prod(self.model.shape))), self.layout.dtype)
        with self._device.computing(strict=False):
            batch = SentBatch(self._device.send(x), self._device.send(np.zeros(rows, dtype)))
            _read([self._step_gradient(batch, 0, 0)])


def _read(losses: list[list[torch.Tensor]]) -> list[float]:
    """The loss of each step, summed over its parts, in one read of the device."""
    if not losses:
        return []
    numbers = iter(torch.stack([part for parts in losses for part in parts]).tolist())
    return [exact_sum([next(numbers) for _ in parts]) for parts in losses]
