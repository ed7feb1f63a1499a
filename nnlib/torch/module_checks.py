"""What a factory's module must be: real numbers of usual types, on the CPU, finite at the start."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from nnlib.core.errors import ConfigError
from nnlib.torch.module_layout import dtype_name


def check_types(module: nn.Module) -> None:
    """Raise `ConfigError` for parameters and buffers that the model's dtype cannot stand for: they would be rounded, or
    lose their imaginary parts."""
    for what, name, tensor in _tensors(module):
        if is_lazy(tensor):
            raise _error(f"{what} {name} has no shape yet: it is lazy", "give its layer the number of inputs")
        if tensor.is_complex():
            raise _error(f"{what} {name} is {dtype_name(tensor)}: real numbers are needed", "keep two real ones")
        if tensor.dtype in (torch.float16, torch.bfloat16):
            raise _error(
                f"{what} {name} is {dtype_name(tensor)}: training keeps float32 or float64", "build it in float32"
            )
        if tensor.layout != torch.strided:
            raise _error(f"{what} {name} is sparse", "make it dense")


def check_device(module: nn.Module) -> None:
    """Raise `ConfigError` for a module that is not on the CPU: where it trains is not its factory's to say."""
    for what, name, tensor in _tensors(module):
        if tensor.device.type == "meta":
            raise _error(f"{what} {name} is on the meta device: it has no numbers", "build it with its numbers")
        if tensor.device.type != "cpu":
            raise _error(f"{what} {name} is on {tensor.device}", "let the factory build it on the CPU")


def check_numbers(module: nn.Module) -> None:
    """Raise `ConfigError` where a module begins with numbers that no training mends."""
    for what, name, tensor in _tensors(module):
        if not tensor.is_floating_point():
            continue
        wrong = torch.isnan(tensor) if what == "buffer" else ~torch.isfinite(tensor)
        if count := int(wrong.sum()):
            kind = "NaN" if what == "buffer" else "not finite"
            raise _error(f"{count} of the first numbers of {what} {name} are {kind}", "initialize them")


def _tensors(module: nn.Module) -> Iterator[tuple[str, str, torch.Tensor]]:
    for name, parameter in module.named_parameters():
        yield "parameter", name, parameter.detach() if not is_lazy(parameter) else parameter
    for name, buffer in module.named_buffers():
        yield "buffer", name, buffer


def _error(text: str, hint: str) -> ConfigError:
    return ConfigError(text, hint=hint, key="model.factory")
