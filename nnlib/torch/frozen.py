"""Frozen parameters: those that need no gradient. A run keeps them once, and every worker has the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from nnlib.core.arrays import Array
from nnlib.core.errors import ConfigError, MismatchError
from nnlib.torch.module_layout import frozen_parameters

# What NumPy and safetensors both hold.
_DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def read_frozen(module: nn.Module) -> dict[str, Array]:
    """Copy the frozen parameters of a module, by name. Raises `ConfigError` for a type that no file can hold."""
    arrays: dict[str, Array] = {}
    for name, tensor in frozen_parameters(module).items():
        if str(tensor.dtype).removeprefix("torch.") not in _DTYPES:
            raise ConfigError(
                f"the frozen parameter {name} is {tensor.dtype}: a run cannot store it",
                hint=f"one of {', '.join(_DTYPES)}",
                key="model.factory",
            )
        arrays[name] = np.array(tensor.detach().cpu().numpy(), order="C")
    return arrays


def fill_frozen(module: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Copy the frozen parameters of a run into a module. Raises `MismatchError` where they are not its own."""
    parameters = frozen_parameters(module)
    if parameters.keys() != arrays.keys():
        odd = sorted(parameters.keys() ^ arrays.keys())
        raise MismatchError(f"the run's frozen parameters are not those of the module: {', '.join(odd[:8])}")
    for name, tensor in parameters.items():
        value = torch.from_numpy(np.array(arrays[name]))
        if value.shape != tensor.shape or value.dtype != tensor.dtype:
            raise MismatchError(
                f"frozen parameter {name}: expected {tensor.dtype} {tuple(tensor.shape)}, found {value.dtype} "
                f"{tuple(value.shape)}"
            )
        tensor.data.copy_(value)


def changed_frozen(module: nn.Module, arrays: Mapping[str, Array]) -> str | None:
    """Return the name of a frozen parameter that is not as the run keeps it; None where all are."""
    for name, tensor in frozen_parameters(module).items():
        if tensor.detach().cpu().numpy().tobytes() != arrays[name].tobytes():
            return name
    return None
