"""Factories of modules: what `model.factory` may say.

A factory is a function ``factory(**arguments, shape=, outputs=)`` that returns a `torch.nn.Module`. ``shape`` is that
of a row as the module gets it: (features,), or (channels, height, width). The module maps a batch (b, *shape) to
(b, outputs): logits for classes, values for a numeric target.
"""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from nnlib.config.code_files import SUFFIX, factory_module, hash_of, installed_source, names_code
from nnlib.core.errors import ConfigError, MismatchError
from nnlib.core.named_object import load_named
from nnlib.models.parts import ModelParts
from nnlib.torch.user_code import import_file, line_of

ModuleFactory = Callable[..., nn.Module]

ZOO: Mapping[str, str] = {
    "torch-mlp": "nnlib.torch.zoo.mlp:build_mlp",
    "simple-nn": "nnlib.torch.zoo.simple:build_simple_nn",
    "simple-cnn": "nnlib.torch.zoo.simple:build_simple_cnn",
    "resnet-small": "nnlib.torch.zoo.resnet:build_resnet",
}
"""Name -> "module:function" of a factory that comes with nnjobs. A new one is one file and one line."""


def factory_named(name: str, parts: ModelParts, hashes: Mapping[str, str]) -> ModuleFactory:
    """Return the factory of a name of `ZOO`, or of ``module:function``, whose module is imported now.

    ``hashes`` are the SHA-256 of the code by name, as `nnlib.config.code_files` fills them in. Raises `ConfigError`
    where there is no such factory, and what ``parts.admit`` raises before any code is imported.
    """
    if not names_code(name):
        if name not in ZOO:
            raise ConfigError(
                f"there is no factory {name!r}",
                key="model.factory",
                hint=f"one of {', '.join(ZOO)}, or module:function with its file in model.files",
            )
        from_zoo: ModuleFactory = load_named(ZOO[name])
        return from_zoo
    if parts.admit is not None:
        parts.admit()
    module = factory_module(name)
    is_own = f"{module}{SUFFIX}" in parts.sources
    imported = import_file(parts.sources, module) if is_own else _import_installed(module, hashes)
    path = name.partition(":")[2]
    try:
        found: Any = reduce(getattr, path.split("."), imported)
    except AttributeError:
        functions = sorted(each for each, value in vars(imported).items() if _is_function_of(value, imported))
        raise ConfigError(
            f"{module} has no {path}",
            hint=f"its functions are {', '.join(functions[:10])}" if functions else None,
            key="model.factory",
        ) from None
    if not callable(found):
        raise ConfigError(f"{name} is {type(found).__name__}, not a function", key="model.factory")
    factory: ModuleFactory = found
    return factory


def call_factory(
    factory: ModuleFactory, name: str, arguments: Mapping[str, Any], shape: tuple[int, ...], outputs: int
) -> nn.Module:
    """Make a module.

    Raises `ConfigError` where the factory raises, with the file and line that did, and where it returns no module.
    """
    try:
        module: object = factory(**arguments, shape=shape, outputs=outputs)
    except (Exception, SystemExit) as error:
        if isinstance(error, ConfigError):  # of a file that it imports late
            raise
        text = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"factory {name} raised {type(error).__name__}: {text}{line_of(error)}", key="model.factory"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"factory {name} returned {type(module).__name__}, not a torch.nn.Module", key="model.factory"
        )
    return module


def _is_function_of(value: object, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _import_installed(module: str, hashes: Mapping[str, str]) -> ModuleType:
    """Import an installed module whose source is the recorded one. Raises `ConfigError` and `MismatchError`."""
    if module not in hashes:
        raise ConfigError(
            f"the hash of {module} is not known",
            hint="set model.kind to torch in the configuration itself, not only in its sweep",
            key="model.sha256",
        )
    if hash_of(installed_source(module)) != hashes[module]:
        raise MismatchError(
            f"the module {module} on {platform.node()} is not the one that this run was made with",
            hint="install the version that the run began with, or train a new run",
            key="model.factory",
        )
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"importing {module} raised {type(error).__name__}: {text}{line_of(error)}", key="model.factory"
        ) from error
    file = getattr(sys.modules[module], "__file__", None)
    if file is None or hash_of(Path(file).read_bytes()) != hashes[module]:
        raise MismatchError(f"the module {module} was loaded from elsewhere: {file}", key="model.factory")
    return imported
