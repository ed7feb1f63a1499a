"""The model of ``model.kind: torch``: a module's layout, its first numbers, and what a batch of it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from nnlib.config.code_files import WEIGHTS, names_code
from nnlib.config.options import TorchOptions
from nnlib.config.schema import Model as ModelConfig
from nnlib.config.section import options_of
from nnlib.core.arrays import Array, IntArray, Vector
from nnlib.core.errors import ConfigError
from nnlib.core.layout import Layout, ModelState, aligned_empty
from nnlib.models.parts import ModelParts
from nnlib.models.protocol import SubnetModel
from nnlib.torch.binding import read_buffers, read_parameters
from nnlib.torch.division import Division
from nnlib.torch.factories import call_factory, factory_named
from nnlib.torch.first_weights import fill_module
from nnlib.torch.frozen import changed_frozen, fill_frozen, read_frozen
from nnlib.torch.module_checks import check_device, check_numbers, check_types
from nnlib.torch.module_layout import FrozenEntry, ModuleContents, contents_of
from nnlib.torch.operations import ForwardOperations
from nnlib.torch.random_state import restored_random_state, seeded_randomness
from nnlib.torch.user_code import line_of

NO_PARTS = ModelParts()
NOTHING: Mapping[str, str] = MappingProxyType({})

PROBE_ROWS = 2
"""Rows of the batch that shows a module's output and memory; BatchNorm needs more than one."""


class TorchModel:
    """How a module is made: factory, arguments, shape of a row, number of outputs, type of its numbers."""

    learner = "nnlib.torch.build_learner:build"

    def __init__(
        self,
        factory: str,
        arguments: Mapping[str, Any],
        *,
        shape: tuple[int, ...],
        outputs: int,
        loss: str,
        dtype: str,
        parts: ModelParts = NO_PARTS,
        hashes: Mapping[str, str] = NOTHING,
        weights: str | None = None,
    ) -> None:
        """``shape``: of a row as the module gets it. ``loss``: softmax, sigmoid or linear. ``hashes``: SHA-256 of code
        and first weights by name, as `nnlib.config.code_files` fills them in. ``weights``: the address of the first
        weights."""
        self.shape, self.outputs, self.loss, self.dtype = shape, outputs, loss, dtype
        self._name, self._arguments = factory, dict(arguments)
        self._parts, self._hashes, self._weights = parts, hashes, weights
        self._spare: nn.Module | None = None

    @property
    def layout(self) -> Layout:
        """See `nnlib.models.protocol.Model.layout`."""
        return self._contents.layout

    @property
    def frozen(self) -> Mapping[str, FrozenEntry]:
        """The parameters that are not trained, by name: they are no part of the layout."""
        return self._contents.frozen

    @cached_property
    def _contents(self) -> ModuleContents:
        """What is in the module. One of the zoo is built without numbers; a user's may keep tensors from one call to
        the next, so it is built whole, and that module is the next one to be used."""
        if not names_code(self._name):
            with torch.device("meta"):
                return contents_of(self._call(), self.dtype)
        module = self._drawn_from(0)
        contents = contents_of(module, self.dtype)
        self._spare = module
        return contents

    def build_module(self) -> nn.Module:
        """Build the module on the CPU with the frozen parameters of the run; the numbers of the layout are to be loaded
        into it.

        Raises `ConfigError` for a factory that does not work and for other arrays than in `layout`, `MismatchError`
        where the frozen parameters do not fit.
        """
        contents = self._contents
        module = self._taken()
        self._check_contents(module)
        if contents.frozen:
            if self._parts.frozen is None:
                raise ValueError("built without the frozen parameters of the run: this model can only start one")
            fill_frozen(module, self._parts.frozen())
        return module

    def check_frozen(self, module: nn.Module) -> None:
        """Raise `ConfigError` where training has changed a frozen parameter of a module that `build_module` made."""
        if self._contents.frozen and self._parts.frozen is not None:
            changed = changed_frozen(module, self._parts.frozen())
            if changed is not None:
                raise ConfigError(
                    f"training changed {changed}, a parameter that needs no gradient: workers would have others",
                    hint="make it a buffer (register_buffer), whose floating values are averaged",
                    key="model.factory",
                )

    def initial(self, rng: np.random.Generator) -> Array:
        """See `nnlib.models.protocol.Model.initial`: what the factory draws, by torch's generator.

        Raises `ConfigError` for a module whose output has not the shape (rows, outputs).
        """
        module = self._first(rng)
        self._check_output(module)
        flat = aligned_empty(self.layout.size, self.layout.dtype)
        read_parameters(module, self.layout, flat)
        return flat

    def initial_buffers(self, rng: np.random.Generator) -> tuple[Vector, ...]:
        """See `nnlib.models.protocol.Model.initial_buffers`."""
        return read_buffers(self._first(rng), self.layout)

    def initial_frozen(self, rng: np.random.Generator) -> dict[str, Array]:
        """See `nnlib.models.protocol.PartedModel.initial_frozen`."""
        return read_frozen(self._first(rng)) if self.frozen else {}

    @property
    def hidden_widths(self) -> tuple[int, ...] | None:
        """See `nnlib.models.protocol.DivisibleModel.hidden_widths`; None where the module cannot be cut."""
        return self._division.widths

    def subnet(self, units: Sequence[IntArray]) -> SubnetModel:
        """See `nnlib.models.protocol.DivisibleModel.subnet`."""
        part = TorchModel(
            self._name,
            self._division.narrowed(units),
            shape=self.shape,
            outputs=self.outputs,
            loss=self.loss,
            dtype=self.dtype,
            parts=self._parts,
            hashes=self._hashes,
        )
        return self._division.subnet(units, part)

    def connections(self, vector: Vector) -> list[Array]:
        """See `nnlib.models.protocol.DivisibleModel.connections`."""
        return self._division.connections(vector)

    def activations(self, state: ModelState, x: Array) -> list[Array]:
        """See `nnlib.models.protocol.DivisibleModel.activations`: of values before the activation function."""
        return self._division.activations(state, x)

    @cached_property
    def _division(self) -> Division:
        return Division(self, factory_named(self._name, self._parts, self._hashes), self._arguments)

    def activation_bytes(self, rows: int) -> int:
        """See `nnlib.models.protocol.Model.activation_bytes`: what a forward pass keeps for the backward pass, as
        autograd says it of a small batch, and as much again for its gradients."""
        return math.ceil(2 * self._saved_bytes * rows / PROBE_ROWS)

    @cached_property
    def row_operations(self) -> float:
        """See `nnlib.models.protocol.Model.row_operations`: three times those of a forward pass, but no fewer than a
        perceptron of as many parameters takes."""
        module = self._taken().train()
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

        module = self._taken()
        own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
        with restored_random_state(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            _ = self._forward(module.train())
        return sum(size for pointer, size in sizes.items() if pointer not in own)

    def check_output(self, output: object, rows: int) -> torch.Tensor:
        """Return what the module made of ``rows`` rows. Raises `ConfigError` unless it is a tensor (rows, outputs)."""
        if not isinstance(output, torch.Tensor) or output.shape != (rows, self.outputs):
            got = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
            raise ConfigError(
                f"the module of {self._name} returns {got} for {rows} rows of shape {self.shape}: "
                f"({rows}, {self.outputs}) is needed",
                key="model.factory",
            )
        return output

    def failure(self, error: Exception, rows: int) -> ConfigError:
        """Return the error of a module that raised ``error`` for a batch of ``rows`` rows."""
        text = " ".join(str(error).split())[:300]
        hint = None
        if rows == 1:
            hint = (
                "batch normalization needs two rows in every batch, and the last one of an epoch has what is left of a "
                "worker's rows: choose another train.batch_size (or train.micro_batch)"
            )
        return ConfigError(
            f"the module of {self._name} fails on a batch of shape {(rows, *self.shape)}: {type(error).__name__}: "
            f"{text}{line_of(error)}",
            hint=hint,
            key="model.factory",
        )

    def _first(self, rng: np.random.Generator) -> nn.Module:
        """The module with the numbers that a run starts from."""
        module = self._drawn_from(int(rng.integers(2**63)))
        self._check_contents(module)
        if self._weights is not None:
            fill_module(module, self._weights, self._hashes[WEIGHTS])
        check_numbers(module)
        return module

    def _taken(self) -> nn.Module:
        """A module whose numbers mean nothing, for one use."""
        module, self._spare = self._spare, None
        return self._drawn_from(0) if module is None else module

    def _drawn_from(self, seed: int) -> nn.Module:
        """The module on the CPU, its numbers drawn from ``seed``; the generators of the user's program stay where they
        are."""
        factory_named(self._name, self._parts, self._hashes)  # what the import of code draws is no part of the module
        with seeded_randomness(seed):
            return self._call()

    def _call(self) -> nn.Module:
        factory = factory_named(self._name, self._parts, self._hashes)
        module = call_factory(factory, self._name, self._arguments, self.shape, self.outputs)
        check_types(module)
        return module.to(getattr(torch, self.dtype))

    def _check_contents(self, module: nn.Module) -> None:
        check_device(module)
        if contents_of(module, self.dtype) != self._contents:
            raise ConfigError(
                f"factory {self._name} made other parameters or buffers when it was called again",
                hint="names and shapes must depend on its arguments alone",
                key="model.factory",
            )

    def _forward(self, module: nn.Module) -> torch.Tensor:
        x = torch.zeros((PROBE_ROWS, *self.shape), dtype=getattr(torch, self.dtype))
        try:
            output: object = module(x)
        except Exception as error:
            raise self.failure(error, PROBE_ROWS) from error
        return self.check_output(output, PROBE_ROWS)

    def _check_output(self, module: nn.Module) -> None:
        with restored_random_state(), torch.inference_mode():
            self._forward(module.eval())


def build(
    config: ModelConfig, *, shape: tuple[int, ...], outputs: int, loss: str, parts: ModelParts = NO_PARTS
) -> TorchModel:
    """Build the model of ``model.kind: torch``. A row of two dimensions is an image of one channel."""
    options = options_of(config, TorchOptions)
    row = (1, *shape) if len(shape) == 2 else shape
    return TorchModel(
        options.factory,
        options.arguments,
        shape=row,
        outputs=outputs,
        loss=loss,
        dtype=config.dtype,
        parts=parts,
        hashes=options.sha256,
        weights=options.weights,
    )
