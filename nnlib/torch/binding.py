"""Tie a module to flat vectors: its parameters and their gradients become views, so a step copies nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from nnlib.core.arrays import Array, Vector
from nnlib.core.layout import Layout, aligned_empty
from nnlib.torch.module_layout import stored_buffers, trainable_parameters


class BoundModule:
    """A module whose trainable parameters are views of ``flat``, shape (layout.size,), in host memory.

    After `bind_gradient`, a backward pass adds to ``gradient``, of the same shape.
    """

    def __init__(self, module: nn.Module, layout: Layout) -> None:
        self.module, self.layout = module, layout
        self.flat = aligned_empty(layout.size, layout.dtype)
        self.gradient = np.empty(0, layout.dtype)
        views = layout.views(self.flat)
        for name, parameter in trainable_parameters(module)[0].items():
            view = torch.from_numpy(views[name])
            view.copy_(parameter.data)
            parameter.data = view
        self._buffers = stored_buffers(module)

    def bind_gradient(self) -> None:
        """Make the gradient vector; until it is filled its values mean nothing."""
        self.gradient = aligned_empty(self.layout.size, self.layout.dtype)
        views = self.layout.views(self.gradient)
        for name, parameter in trainable_parameters(self.module)[0].items():
            parameter.grad = torch.from_numpy(views[name])

    def load(self, vector: Vector, buffers: tuple[Vector, ...]) -> None:
        """Copy the parameters from ``vector``, which begins with them, and the buffers into the module."""
        self.flat[:] = vector[: self.layout.size]
        write_buffers(self._buffers, self.layout, buffers)

    def buffers(self) -> tuple[Vector, ...]:
        """Copy the module's buffers."""
        return read_buffers(self.module, self.layout)


def read_parameters(module: nn.Module, layout: Layout, flat: Array) -> None:
    """Copy a module's trainable parameters into ``flat``, shape (layout.size,)."""
    views = layout.views(flat)
    for name, parameter in trainable_parameters(module)[0].items():
        views[name][...] = parameter.detach().cpu().numpy()


def write_buffers(tensors: Mapping[str, torch.Tensor], layout: Layout, buffers: tuple[Vector, ...]) -> None:
    """Copy buffers into a module's ``tensors`` of them, by name, wherever these are."""
    for name, view in layout.buffer_views(buffers).items():
        tensors[name].copy_(torch.from_numpy(np.array(view)))


def read_buffers(module: nn.Module, layout: Layout) -> tuple[Vector, ...]:
    """Copy a module's buffers into new vectors, one for each of ``layout.buffers``."""
    buffers = layout.zero_buffers()
    tensors = stored_buffers(module)
    for name, view in layout.buffer_views(buffers).items():
        view[...] = tensors[name].detach().cpu().numpy()
    return buffers
