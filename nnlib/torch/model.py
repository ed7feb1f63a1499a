"""The model of ``model.kind: torch``: a module's layout, its first numbers, and what a batch of it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from nnlib.config.options import TorchOptions
from nnlib.config.schema import Model as ModelConfig
from nnlib.config.section import options_of
from nnlib.core.arrays import Array, Vector
from nnlib.core.errors import ConfigError
from nnlib.core.layout import Layout, aligned_empty
from nnlib.torch.binding import read_buffers, read_parameters
from nnlib.torch.factories import call_factory, factory_named
from nnlib.torch.module_layout import layout_of
from nnlib.torch.operations import ForwardOperations
from nnlib.torch.random_state import restored_random_state

PROBE_ROWS = 2
"""Rows of the batch that shows a module's output and memory; BatchNorm needs more than one."""


class TorchModel:
    """How a module is made: factory, arguments, shape of a row, number of outputs, type of its numbers."""

    learner = "nnlib.torch.learner:build"

    def __init__(
        self, factory: str, arguments: Mapping[str, Any], *, shape: tuple[int, ...], outputs: int, loss: str, dtype: str
    ) -> None:
        """``shape``: of a row as the module gets it. ``loss``: softmax, sigmoid or linear."""
        self.shape, self.outputs, self.loss, self.dtype = shape, outputs, loss, dtype
        self._name, self._arguments = factory, dict(arguments)

    @cached_property
    def layout(self) -> Layout:
        """See `nnlib.models.protocol.Model.layout`. The module is built without numbers where it can be."""
        return layout_of(self._build_without_numbers(), self.dtype)

    def build_module(self, seed: int = 0) -> nn.Module:
        """Build the module on the CPU, its numbers drawn from ``seed``; torch's own generator stays where it is.

        Raises `ConfigError` for a factory that does not work and for other arrays than in `layout`.
        """
        with restored_random_state():
            torch.default_generator.manual_seed(seed)
            module = self._call()
        if "layout" in self.__dict__ and layout_of(module, self.dtype).fingerprint != self.layout.fingerprint:
            raise ConfigError(
                f"factory {self._name} made other parameters or buffers when it was called again",
                hint="names and shapes must depend on its arguments alone",
                key="model.factory",
            )
        return module

    def initial(self, rng: np.random.Generator) -> Array:
        """See `nnlib.models.protocol.Model.initial`: what the factory draws, by torch's generator.

        Raises `ConfigError` for a module whose output has not the shape (rows, outputs).
        """
        module = self._drawn(rng)
        self._check_output(module)
        flat = aligned_empty(self.layout.size, self.layout.dtype)
        read_parameters(module, self.layout, flat)
        return flat

    def initial_buffers(self, rng: np.random.Generator) -> tuple[Vector, ...]:
        """See `nnlib.models.protocol.Model.initial_buffers`."""
        return read_buffers(self._drawn(rng), self.layout)

    def activation_bytes(self, rows: int) -> int:
        """See `nnlib.models.protocol.Model.activation_bytes`: what a forward pass keeps for the backward pass, as
        autograd says it of a small batch, and as much again for its gradients."""
        return math.ceil(2 * self._saved_bytes * rows / PROBE_ROWS)

    @cached_property
    def row_operations(self) -> float:
        """See `nnlib.models.protocol.Model.row_operations`: three times those of a forward pass, but no fewer than a
        perceptron of as many parameters takes."""
        module = self.build_module().train()
        counter = ForwardOperations()
        with restored_random_state(), torch.no_grad(), counter:
            self._forward(module)
        return max(3.0 * counter.operations / PROBE_ROWS, 6.0 * self.layout.size)

    @cached_property
    def _saved_bytes(self) -> int:
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        module = self.build_module()
        own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
        with restored_random_state(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            _ = self._forward(module.train())
        return sum(size for pointer, size in sizes.items() if pointer not in own)

    def _drawn(self, rng: np.random.Generator) -> nn.Module:
        return self.build_module(int(rng.integers(2**63)))

    def _call(self) -> nn.Module:
        module = call_factory(factory_named(self._name), self._name, self._arguments, self.shape, self.outputs)
        return module.to(getattr(torch, self.dtype))

    def _build_without_numbers(self) -> nn.Module:
        """Build the module on torch's meta device; with its numbers where its factory needs them."""
        try:
            with torch.device("meta"):
                return self._call()
        except (ConfigError, NotImplementedError, RuntimeError):
            return self.build_module()

    def _forward(self, module: nn.Module) -> torch.Tensor:
        x = torch.zeros((PROBE_ROWS, *self.shape), dtype=getattr(torch, self.dtype))
        try:
            output: object = module(x)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"the module of {self._name} fails on a batch of shape {tuple(x.shape)}: "
                f"{type(error).__name__}: {text}",
                key="model.factory",
            ) from error
        if not isinstance(output, torch.Tensor) or output.shape != (PROBE_ROWS, self.outputs):
            got = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
            raise ConfigError(
                f"the module of {self._name} returns {got} for {PROBE_ROWS} rows of shape {self.shape}: "
                f"({PROBE_ROWS}, {self.outputs}) is needed",
                key="model.factory",
            )
        return output

    def _check_output(self, module: nn.Module) -> None:
        with restored_random_state(), torch.inference_mode():
            self._forward(module.eval())


def build(config: ModelConfig, *, shape: tuple[int, ...], outputs: int, loss: str) -> TorchModel:
    """Build the model of ``model.kind: torch``. A row of two dimensions is an image of one channel."""
    options = options_of(config, TorchOptions)
    row = (1, *shape) if len(shape) == 2 else shape
    return TorchModel(options.factory, options.arguments, shape=row, outputs=outputs, loss=loss, dtype=config.dtype)
