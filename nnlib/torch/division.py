"""Cutting a torch module into sub-nets: its hidden layers by name, and where a sub-net's numbers lie in the whole's.

A layer is a weight of two or more dimensions, (units above, units below, ...), and the parameters of one dimension that
follow it. Behind a flattened convolution a unit has several columns below it, one for each position of each channel.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from nnlib.core.arrays import Array, IntArray, Vector
from nnlib.core.entries import Entry
from nnlib.core.errors import ConfigError
from nnlib.core.layout import ModelState
from nnlib.models.protocol import Model, SubnetModel
from nnlib.torch.binding import BoundModule
from nnlib.torch.factories import ModuleFactory
from nnlib.torch.widths import ATTRIBUTE


class ModuleModel(Model, Protocol):
    """What a division needs of a `nnlib.torch.model.TorchModel`."""

    shape: tuple[int, ...]
    outputs: int

    @property
    def frozen(self) -> Mapping[str, object]:
        """The parameters that are not trained, by name."""
        ...

    def build_module(self) -> nn.Module:
        """Build the module; its numbers are to be loaded."""
        ...


@dataclass(frozen=True)
class _Layer:
    """A layer's parameters: its weight, and the others, which have a number for each unit."""

    weight: Entry
    others: tuple[Entry, ...]


class Division:
    """The hidden layers of a module, whose factory says which arguments are their widths (`nnlib.torch.widths`)."""

    def __init__(self, model: ModuleModel, factory: ModuleFactory, arguments: Mapping[str, Any]) -> None:
        self._model, self._arguments = model, arguments
        names: Sequence[str] = getattr(factory, ATTRIBUTE, ())
        defaults = inspect.signature(factory).parameters if names else {}
        self._given = {name: arguments.get(name, defaults[name].default) for name in names}

    @cached_property
    def widths(self) -> tuple[int, ...] | None:
        """The units of each hidden layer; None where the factory does not say, or the module has numbers that a
        sub-net could not have (frozen or tied ones). Raises `ConfigError` for a module that is not made in layers."""
        if not self._given or self._model.frozen or self._model.layout.aliases:
            return None
        widths = tuple(int(width) for given in self._given.values() for width in np.atleast_1d(given))
        layers = self._layers
        sizes = [layer.weight.shape[0] for layer in layers]
        below = [layer.weight.shape[1] for layer in layers[1:]]
        if sizes != [*widths, self._model.outputs] or any(
            size % width for size, width in zip(below, widths, strict=True)
        ):
            raise ConfigError(
                f"the module has layers of {', '.join(map(str, sizes))} units, its factory says "
                f"{', '.join(map(str, [*widths, self._model.outputs]))}: it cannot be cut into sub-nets",
                key="model.factory",
            )
        return widths

    @cached_property
    def _layers(self) -> list[_Layer]:
        layers: list[tuple[Entry, list[Entry]]] = []
        for entry in self._model.layout.entries:
            if len(entry.shape) > 1:
                layers.append((entry, []))
            elif layers:
                layers[-1][1].append(entry)
        return [_Layer(weight, tuple(others)) for weight, others in layers]

    def narrowed(self, units: Sequence[IntArray]) -> dict[str, object]:
        """Return the factory's arguments for a module of these units alone."""
        sizes = iter(len(layer) for layer in units)
        narrow = {
            name: next(sizes) if isinstance(given, int) else [next(sizes) for _ in given]
            for name, given in self._given.items()
        }
        return {**self._arguments, **narrow}

    def subnet(self, units: Sequence[IntArray], model: ModuleModel) -> SubnetModel:
        """Return the sub-net of these units, whose own model is ``model``."""
        layers = self._layers
        widths = self.widths or ()
        above = [*units, np.arange(self._model.outputs)]
        positions: dict[str, IntArray] = {}
        factors = {entry.name: 1.0 for entry in model.layout.entries}
        for number, layer in enumerate(layers):
            columns = np.arange(layer.weight.shape[1])
            if number:
                wide = layer.weight.shape[1] // widths[number - 1]
                columns = (units[number - 1][:, None] * wide + np.arange(wide)).reshape(-1)
                factors[layer.weight.name] = widths[number - 1] / len(units[number - 1])
            positions[layer.weight.name] = _places(layer.weight)[np.ix_(above[number], columns)]
            for entry in layer.others:
                positions[entry.name] = _places(entry)[above[number]]
        entries = model.layout.entries
        for entry in entries:
            if positions[entry.name].shape != entry.shape:
                expected = positions[entry.name].shape
                raise ConfigError(
                    f"{entry.name} has the shape {entry.shape} in a sub-net, {expected} was expected",
                    key="model.factory",
                )
        return SubnetModel(
            model,
            np.concatenate([positions[entry.name].reshape(-1) for entry in entries]).astype(np.int64),
            np.concatenate([np.full(entry.size, factors[entry.name]) for entry in entries]),
        )

    def connections(self, vector: Vector) -> list[Array]:
        """See `nnlib.models.protocol.DivisibleModel.connections`."""
        views, found = self._model.layout.views(vector), []
        for number, layer in enumerate(self._layers):
            weight = np.abs(views[layer.weight.name].astype(np.float64))
            below = (self.widths or ())[number - 1] if number else layer.weight.shape[1]
            found.append(weight.reshape(len(weight), below, -1).sum(axis=2).T)
        return found

    def activations(self, state: ModelState, x: Array) -> list[Array]:
        """See `nnlib.models.protocol.DivisibleModel.activations`: what a layer makes before its activation function."""
        module = self._model.build_module()
        BoundModule(module, self._model.layout).load(state.vector, state.buffers)
        seen: dict[str, Array] = {}
        owners = dict(module.named_modules())
        hooks = []
        for layer in self._layers[:-1]:
            name = layer.weight.name
            hooks.append(owners[name.rpartition(".")[0]].register_forward_hook(_keeping(seen, name)))
        with torch.inference_mode():
            module.eval()(torch.from_numpy(x.copy()).view(len(x), *self._model.shape))
        for hook in hooks:
            hook.remove()
        return [seen[layer.weight.name] for layer in self._layers[:-1]]


def _places(entry: Entry) -> IntArray:
    """Where each number of an entry lies in the flat vector, in the entry's shape."""
    places: IntArray = np.arange(entry.offset, entry.offset + math.prod(entry.shape)).reshape(entry.shape)
    return places


def _keeping(seen: dict[str, Array], name: str) -> Any:
    """A hook that keeps what a module makes, the mean over positions of each channel."""

    def keep(_: nn.Module, __: object, output: torch.Tensor) -> None:
        seen[name] = output.flatten(2).mean(dim=2).numpy() if output.dim() > 2 else output.numpy()

    return keep
