"""The layout of a torch module: which of its tensors lie where in the flat vector and in the buffers.

Parameters that need gradients make the flat vector, under the names that ``named_parameters`` gives them; a tied
parameter is one entry with several names. Buffers that the module's ``state_dict`` has lie apart, exact to the bit:
floating ones are averaged, BatchNorm's ``num_batches_tracked`` goes by the maximum, all others must not change.
Parameters that need no gradient (frozen) are no part of the layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from nnlib.core.entries import BUFFER_DTYPES, Entry, Rule, buffer, parameter
from nnlib.core.errors import ConfigError
from nnlib.core.layout import Layout

COUNTER = "num_batches_tracked"
"""How torch names the counter of a normalization layer."""


@dataclass(frozen=True)
class FrozenEntry:
    """A parameter that is not trained: its shape and the name of its type."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ModuleContents:
    """What is in a module: the layout of its numbers, and its frozen parameters by name."""

    layout: Layout
    frozen: Mapping[str, FrozenEntry]


def contents_of(module: nn.Module, dtype: str) -> ModuleContents:
    """Return what is in a module. Raises as `layout_of` does."""
    frozen = {
        name: FrozenEntry(tuple(tensor.shape), dtype_name(tensor)) for name, tensor in frozen_parameters(module).items()
    }
    return ModuleContents(layout_of(module, dtype), frozen)


def layout_of(module: nn.Module, dtype: str) -> Layout:
    """Return the layout of a module whose floating tensors have type ``dtype``.

    Raises `ConfigError` for a module without trainable parameters and for tensors of types that no file of a model
    can hold.
    """
    parameters, aliases = trainable_parameters(module)
    if not parameters:
        raise ConfigError("the module has no parameters to train", key="model.factory")
    for name, tensor in parameters.items():
        if dtype_name(tensor) != dtype:
            raise ConfigError(
                f"parameter {name} is {dtype_name(tensor)}: floating parameters must be {dtype}", key="model.factory"
            )
    entries = [parameter(name, tensor.shape, decays=tensor.dim() > 1) for name, tensor in parameters.items()]
    return Layout.build([*entries, *_buffer_entries(module)], dtype, aliases)


def trainable_parameters(module: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """Return the parameters that need gradients, each once by its first name, and the other names of tied ones:
    {another name: first name}."""
    parameters: dict[str, nn.Parameter] = {}
    first_names: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        if not tensor.requires_grad:
            continue
        if id(tensor) in first_names:
            aliases[name] = first_names[id(tensor)]
        else:
            first_names[id(tensor)] = name
            parameters[name] = tensor
    return parameters, aliases


def frozen_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that need no gradients, each once by its first name."""
    return {name: tensor for name, tensor in module.named_parameters() if not tensor.requires_grad}


def stored_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the buffers that are part of the module's ``state_dict``, each once by its first name."""
    stored = module.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in module.named_buffers() if name in stored}


def rule_of(name: str, tensor: torch.Tensor) -> Rule:
    """Return how the workers' values of a buffer are combined."""
    if tensor.is_floating_point():
        return "mean"
    return "max" if name.rpartition(".")[2] == COUNTER else "keep"


def dtype_name(tensor: torch.Tensor) -> str:
    """Return the name of a tensor's type without torch's prefix: ``float32``."""
    return str(tensor.dtype).removeprefix("torch.")


def _buffer_entries(module: nn.Module) -> Iterator[Entry]:
    for name, tensor in stored_buffers(module).items():
        if dtype_name(tensor) not in BUFFER_DTYPES:
            raise ConfigError(
                f"buffer {name} is {dtype_name(tensor)}: a run cannot store it",
                hint=f"one of {', '.join(BUFFER_DTYPES)}, or register_buffer(..., persistent=False)",
                key="model.factory",
            )
        yield buffer(name, tensor.shape, dtype_name(tensor), rule_of(name, tensor))
