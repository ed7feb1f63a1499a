"""Tie a module to flat vectors: its parameters and their gradients become views, so a step copies nothing.

Kernels that a module holds channels last, which oneDNN computes faster, stay so: they lie in another order than in the
flat vector, which has every array in C order, and are copied at every step. A copy costs far less than it saves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from nnlib.core.arrays import Array, Vector
from nnlib.core.layout import Layout, aligned_empty
from nnlib.torch.module_layout import stored_buffers, trainable_parameters


class BoundModule:
    """A module whose trainable parameters follow ``flat``, shape (layout.size,), in host memory.

    After `bind_gradient`, backward passes add to ``gradient``, of the same shape: from `clear_gradient` to
    `collect_gradient`. `follow` is to be called after ``flat`` has changed.
    """

    def __init__(self, module: nn.Module, layout: Layout) -> None:
        self.module, self.layout = module, layout
        self.flat = aligned_empty(layout.size, layout.dtype)
        self.gradient = np.empty(0, layout.dtype)
        self._copied: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._copied_gradients: list[tuple[torch.Tensor, torch.Tensor]] = []
        views = layout.views(self.flat)
        for name, parameter in trainable_parameters(module)[0].items():
            view = torch.from_numpy(views[name])
            view.copy_(parameter.data)
            if is_channels_last(parameter):
                self._copied.append((parameter.data, view))
            else:
                parameter.data = _strided(view, parameter)
        self._buffers = stored_buffers(module)

    def bind_gradient(self) -> None:
        """Make the gradient vector; until it is filled its values mean nothing."""
        self.gradient = aligned_empty(self.layout.size, self.layout.dtype)
        views = self.layout.views(self.gradient)
        for name, parameter in trainable_parameters(self.module)[0].items():
            view = torch.from_numpy(views[name])
            if is_channels_last(parameter):
                parameter.grad = torch.zeros_like(parameter)
                self._copied_gradients.append((parameter.grad, view))
            else:
                parameter.grad = _strided(view, parameter)

    def follow(self) -> None:
        """Give the module the numbers of ``flat``."""
        for tensor, view in self._copied:
            tensor.copy_(view)

    def clear_gradient(self) -> None:
        """Set the gradient to zero."""
        self.gradient.fill(0.0)
        for tensor, _ in self._copied_gradients:
            tensor.zero_()

    def collect_gradient(self) -> None:
        """Let ``gradient`` have all that backward passes have added since `clear_gradient`."""
        for tensor, view in self._copied_gradients:
            view.copy_(tensor)

    def load(self, vector: Vector, buffers: tuple[Vector, ...]) -> None:
        """Copy the parameters from ``vector``, which begins with them, and the buffers into the module."""
        self.flat[:] = vector[: self.layout.size]
        self.follow()
        write_buffers(self._buffers, self.layout, buffers)

    def buffers(self) -> tuple[Vector, ...]:
        """Copy the module's buffers."""
        return read_buffers(self.module, self.layout)


def is_channels_last(parameter: torch.Tensor) -> bool:
    """Return whether a kernel, (out, in, height, width), lies in memory as (out, height, width, in)."""
    return (
        parameter.dim() == 4
        and parameter.is_contiguous(memory_format=torch.channels_last)
        and not parameter.is_contiguous()
    )


def _strided(view: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The view with a parameter's own strides, which differ where a side is 1: torch chooses its kernels by them."""
    return view.as_strided(parameter.shape, parameter.stride()) if parameter.is_contiguous() else view


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
