"""Tie a module to flat vectors of a device, as `nnlib.torch.binding` does on the host."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from nnlib.core.arrays import Vector
from nnlib.core.layout import Layout
from nnlib.torch.binding import read_buffers, write_buffers
from nnlib.torch.devices import Device
from nnlib.torch.module_layout import stored_buffers, trainable_parameters


class DeviceModule:
    """A module on a device. Its trainable parameters are views of ``flat``, their gradients of ``gradient``, both of
    shape (layout.size,)."""

    def __init__(self, module: nn.Module, layout: Layout, device: Device) -> None:
        self.module, self.layout = module.to(device.handle), layout
        dtype = getattr(torch, layout.dtype)
        self.flat = torch.zeros(layout.size, dtype=dtype, device=device.handle)
        self.gradient = torch.zeros_like(self.flat)
        entries = {entry.name: entry for entry in layout.entries}
        for name, parameter in trainable_parameters(self.module)[0].items():
            entry = entries[name]
            parameter.data = self.flat[entry.range].view(entry.shape)
            parameter.grad = self.gradient[entry.range].view(entry.shape)
        self._buffers = stored_buffers(self.module)

    def load(self, vector: Vector, buffers: tuple[Vector, ...]) -> None:
        """Copy the parameters from ``vector``, which begins with them, and the buffers to the device."""
        self.flat.copy_(torch.from_numpy(np.array(vector[: self.layout.size])))
        write_buffers(self._buffers, self.layout, buffers)

    def buffers(self) -> tuple[Vector, ...]:
        """Copy the module's buffers to the host."""
        return read_buffers(self.module, self.layout)
