"""Factories of modules by name: what `model.factory` may say.

A factory is a function ``factory(**arguments, shape=, outputs=)`` that returns a `torch.nn.Module`. ``shape`` is that
of a row as the module gets it: (features,), or (channels, height, width). The module maps a batch (b, *shape) to
(b, outputs): logits for classes, values for a numeric target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from nnlib.core.errors import ConfigError
from nnlib.core.named_object import load_named

ModuleFactory = Callable[..., nn.Module]

ZOO: Mapping[str, str] = {
    "torch-mlp": "nnlib.torch.zoo.mlp:build_mlp",
    "simple-nn": "nnlib.torch.zoo.simple:build_simple_nn",
    "simple-cnn": "nnlib.torch.zoo.simple:build_simple_cnn",
    "resnet-small": "nnlib.torch.zoo.resnet:build_resnet",
}
"""Name -> "module:function" of a factory that comes with nnjobs. A new one is one file and one line."""


def factory_named(name: str) -> ModuleFactory:
    """Return the factory of this name. Raises `ConfigError` if there is none."""
    if name not in ZOO:
        raise ConfigError(f"there is no factory {name!r}", key="model.factory", hint=f"one of {', '.join(ZOO)}")
    factory: ModuleFactory = load_named(ZOO[name])
    return factory


def call_factory(
    factory: ModuleFactory, name: str, arguments: Mapping[str, Any], shape: tuple[int, ...], outputs: int
) -> nn.Module:
    """Make a module.

    Raises `ConfigError` where the factory raises, with the file and line that did, and where it returns no module.
    """
    try:
        module: object = factory(**arguments, shape=shape, outputs=outputs)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"factory {name} raised {type(error).__name__}: {text}{_line_of(error)}", key="model.factory"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"factory {name} returned {type(module).__name__}, not a torch.nn.Module", key="model.factory"
        )
    return module


def _line_of(error: BaseException) -> str:
    """Where an error was raised, for a message."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"
