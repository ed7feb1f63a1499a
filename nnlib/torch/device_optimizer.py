"""Our optimizers on a device: the formulas of `nnlib.optim`, computed by torch on the device's flat vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from nnlib.config.kinds import OPTIMIZERS
from nnlib.core.arrays import Vector
from nnlib.core.errors import ConfigError
from nnlib.optim import StepOptimizer
from nnlib.optim.blocked import BlockedOptimizer
from nnlib.optim.clipping import TINY
from nnlib.optim.operations import Operation
from nnlib.torch.devices import Device
from nnlib.training.learner import TrainingSetup
from nnlib.training.optimizer_steps import OptimizerSteps


class TorchOperations:
    """See `nnlib.optim.operations.Operations`. Each is one torch operation, so its bits repeat on the same device."""

    add: Operation = staticmethod(torch.add)
    subtract: Operation = staticmethod(torch.subtract)
    multiply: Operation = staticmethod(torch.multiply)
    divide: Operation = staticmethod(torch.divide)
    sqrt: Operation = staticmethod(torch.sqrt)
    maximum: Operation = staticmethod(lambda vector, number, out: torch.clamp(vector, min=number, out=out))

    def __init__(self, device: torch.device) -> None:
        self.empty: Callable[[int, str], torch.Tensor] = lambda size, dtype: torch.empty(
            size, dtype=getattr(torch, dtype), device=device
        )


class DeviceSteps(OptimizerSteps):
    """The steps of an optimizer whose vectors, and those it moves, are on a device. What comes in by `load` and leaves
    by `state` is on the host."""

    def __init__(self, setup: TrainingSetup, optimizer: StepOptimizer, device: Device) -> None:
        """Raises `ConfigError` for an optimizer that computes on the host only."""
        if not isinstance(optimizer, BlockedOptimizer):
            ours = [name for name in OPTIMIZERS if OPTIMIZERS[name].averages_gradients and ":" not in name]
            raise ConfigError(
                f"{setup.config.train.optimizer} computes on the CPU alone, runtime.device is {device.kind}",
                key="train.optimizer",
                hint=f"one of {', '.join(ours)}",
            )
        super().__init__(setup, optimizer)
        optimizer.compute_by(TorchOperations(device.handle))
        self._moved = optimizer

    def take_on_device(self, flat: torch.Tensor, gradient: torch.Tensor, lr: float) -> None:
        """See `nnlib.training.optimizer_steps.OptimizerSteps.take`. Nothing waits for the device, but for
        `train.clip_norm` to know the norm."""
        self._restore()
        if (largest := self._train.clip_norm) is not None:
            norm = torch.linalg.vector_norm(gradient, dtype=_widest(gradient)).item()
            if (factor := largest / (norm + TINY)) < 1.0:
                gradient.mul_(factor)
        self._moved.step(flat, gradient, lr, self._decay)  # type: ignore[arg-type]  # its operations are torch's

    def state(self) -> Vector:
        self._restore()
        vectors: torch.Tensor = self._moved.state  # type: ignore[assignment]  # see `BlockedOptimizer.compute_by`
        return np.concatenate([vectors.cpu().numpy(), self._moved.counts])

    def _restore(self) -> None:
        if self._loaded is None:
            return
        if self._loaded.size:
            vectors: torch.Tensor = self._moved.state  # type: ignore[assignment]
            vectors.copy_(torch.from_numpy(self._loaded[: len(vectors)]))
            self._moved.counts[:] = self._loaded[len(vectors) :]
        else:
            self._moved.reset()
        self._loaded = None


def _widest(vector: torch.Tensor) -> torch.dtype:
    """The type to sum squares in: float64 where the device has it."""
    return torch.float32 if vector.device.type == "mps" else torch.float64
