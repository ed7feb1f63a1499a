"""The code and the files that a model section names: where they are, and what is in them.

Resolving a configuration puts the SHA-256 of each into ``model.sha256``, which is part of the mathematics: ``nets.py``
for a file of ``model.files``, ``package.module`` for the source of an installed module that ``model.factory`` names,
``from`` for the first weights. Nothing is imported here: code runs when a model is built (`nnlib.torch.user_code`).
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from nnlib.config.options import TorchOptions, torch_options
from nnlib.config.schema import Config
from nnlib.config.sweep import combinations
from nnlib.core.errors import ConfigError, MismatchError, StorageError
from nnlib.storage import file_at, has_scheme
from nnlib.storage.addresses import absolute_path

MAX_FILE, MAX_ALL = 1 << 20, 4 << 20
"""Bytes of one file of code, and of all together: they travel with every task."""

WEIGHTS = "from"
"""The name of the first weights in ``model.sha256``, and the key that has their address."""

SUFFIX = ".py"
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def names_code(factory: str) -> bool:
    """Return whether a factory is ``module:function``, not the name of one that comes with nnjobs."""
    return ":" in factory


def model_sections(config: Config) -> list[TorchOptions]:
    """Return the model section of each combination of the sweep, where it is a torch module's."""
    if torch_options(config.model) is None and "model.kind" not in config.sweep:
        return []
    sections = [
        config.model if not overrides else config.with_overrides(overrides).model
        for overrides in combinations({key: values for key, values in config.sweep.items() if key.startswith("model.")})
    ]
    return [options for section in sections if (options := torch_options(section)) is not None]


def with_hashes(config: Config, *, files: str = "", weights: str = "") -> Config:
    """Return the configuration with ``model.sha256`` filled in, and with absolute addresses.

    Args:
        config: any configuration; one that names no code and no weights is returned as it is.
        files: the address of the folder that ``model.files`` are relative to; empty: the current one.
        weights: the same for ``model.from``.

    Raises:
        ConfigError: a file is missing, too large or no Python, a module is not installed, or a hash that the
            configuration names already is another one.
    """
    options = torch_options(config.model)
    if options is None:
        return config
    sections = model_sections(config)
    factories = {section.factory for section in sections if names_code(section.factory)}
    if not (factories or options.files or options.weights):
        return config
    addresses = [_absolute(file, files) for file in options.files]
    hashes = {name: hash_of(data) for name, data in _read_files(addresses).items()}
    for factory in sorted(factories):
        module = factory_module(factory)
        if f"{module}{SUFFIX}" not in hashes:
            hashes[module] = hash_of(installed_source(module))
    changes: dict[str, object] = {"files": addresses}
    if options.weights is not None:
        changes[WEIGHTS] = _absolute(options.weights, weights)
        hashes[WEIGHTS] = hash_of_file(str(changes[WEIGHTS]))
    for name, wanted in options.sha256.items():
        if hashes.get(name) != wanted:
            raise ConfigError(
                f"{name} is not what model.sha256 says: its SHA-256 is {hashes.get(name, 'unknown')}",
                hint="bring that file back, or leave model.sha256 out",
                key="model.sha256",
            )
    return config.model_copy(update={"model": config.model.model_copy(update={**changes, "sha256": hashes})})


def with_missing_hashes(config: Config) -> Config:
    """Return `with_hashes` of a configuration that was made by a program; one that was read from a file has them."""
    options = torch_options(config.model)
    return config if options is None or options.sha256 else with_hashes(config)


def read_sources(config: Config) -> dict[str, str]:
    """Read the files of ``model.files``: their text by name.

    Raises `ConfigError` where one is missing, or is not the one of ``model.sha256`` any more.
    """
    options = torch_options(config.model)
    if options is None or not options.files:
        return {}
    sources = _read_files([_absolute(file, "") for file in options.files])
    for name, data in sources.items():
        if hash_of(data) != options.sha256.get(name):
            raise ConfigError(
                "this file has changed since the configuration was resolved",
                hint="train from the configuration file again, or leave model.sha256 out",
                key="model.files",
                file=name,
            )
    return {name: data.decode() for name, data in sources.items()}


def check_sources(config: Config, sources: Mapping[str, str]) -> None:
    """Raise `MismatchError` unless ``sources`` are the files whose SHA-256 a configuration names, no more and no
    fewer."""
    options = torch_options(config.model)
    hashes = {} if options is None else options.sha256
    wanted = {name: hashes[name] for name in code_names(hashes)}
    found = {name: hash_of(text.encode()) for name, text in sources.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise MismatchError(
                "this file of the run's code was altered: its SHA-256 is not the one of its configuration"
                if name in found
                else "this file of the run's code is missing",
                hint="bring back a copy of it",
                file=name,
            )


def factory_module(factory: str) -> str:
    """Return the module of ``module:function``. Raises `ConfigError` for another text."""
    module = factory.partition(":")[0]
    if not _REFERENCE.fullmatch(factory):
        meant = module.rpartition("/")[2].removesuffix(SUFFIX)
        raise ConfigError(
            f"{factory!r} is no module:function",
            hint=f"write {meant}:FUNCTION" if meant.isidentifier() else "as in nets:build, of the file nets.py",
            key="model.factory",
        )
    if module.endswith(SUFFIX):
        raise ConfigError(
            f"{factory!r} names a file: a module has no {SUFFIX}",
            hint=f"write {factory.replace(f'{SUFFIX}:', ':')}",
            key="model.factory",
        )
    return module


def code_names(hashes: Mapping[str, str]) -> list[str]:
    """Return those names of ``model.sha256`` that are files of ``model.files``."""
    return sorted(name for name in hashes if name.endswith(SUFFIX))


def hash_of(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hash_of_file(address: str) -> str:
    """Return the SHA-256 of a file. Raises `ConfigError` where there is none, `StorageError` if it cannot be read."""
    digest = hashlib.sha256()
    folder, name = file_at(address)
    if not folder.exists(name):
        raise ConfigError("there is no such file", key="model.from", file=address)
    with folder.open(name) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def installed_source(module: str) -> bytes:
    """Read the source of an installed module; neither it nor the packages that hold it are imported.

    Raises `ConfigError` where there is none.
    """
    spec: ModuleSpec | None = None
    path: Iterable[str] | None = sys.path
    for name in _ancestors(module):
        spec = PathFinder.find_spec(name, None if path is None else list(path))
        if spec is None:
            break
        path = spec.submodule_search_locations or ()
    if spec is None:
        raise ConfigError(
            f"there is no module {module}",
            hint=f"add its file to model.files, or install the package {module.partition('.')[0]}",
            key="model.factory",
        )
    if not spec.origin or not spec.origin.endswith(SUFFIX):
        raise ConfigError(f"the module {module} has no Python source", key="model.factory")
    return Path(spec.origin).read_bytes()


def _ancestors(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _absolute(address: str, folder: str) -> str:
    if has_scheme(address):
        return address
    if folder and not Path(address).expanduser().is_absolute():
        address = f"{folder.rstrip('/')}/{address}"
        if has_scheme(folder):
            return address
    return str(absolute_path(address))


def _read_files(addresses: Sequence[str]) -> dict[str, bytes]:
    """The bytes of files of code by name."""
    sources: dict[str, bytes] = {}
    for address in addresses:
        name = address.rpartition("/")[2]
        if not name.endswith(SUFFIX) or not name.removesuffix(SUFFIX).isidentifier():
            raise ConfigError(
                f"a file of code is named as a module: NAME{SUFFIX}, letters, digits and _",
                key="model.files",
                file=address,
            )
        if name in sources:
            raise ConfigError("two files have this name, so they would be one module", key="model.files", file=name)
        sources[name] = _read(address)
        _check_syntax(address, name, sources[name])
    if sum(map(len, sources.values())) > MAX_ALL:
        raise ConfigError(
            f"together larger than {MAX_ALL >> 20} MiB, and they travel with every task",
            hint="put data into the dataset or the weights",
            key="model.files",
        )
    return sources


def _read(address: str) -> bytes:
    try:
        folder, name = file_at(address)
        if not folder.exists(name):
            raise ConfigError("there is no such file", key="model.files", file=address)
        with folder.open(name) as stream:
            data = stream.read(MAX_FILE + 1)
    except StorageError as error:
        raise ConfigError(f"cannot be read: {error.message}", key="model.files", file=address) from error
    if len(data) > MAX_FILE:
        raise ConfigError(
            f"larger than {MAX_FILE >> 20} MiB: this is no code",
            hint="put data into the dataset or the weights",
            key="model.files",
            file=address,
        )
    return data


def _check_syntax(address: str, name: str, data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 text: byte {error.start}", key="model.files", file=address) from None
    try:
        ast.parse(text, name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ConfigError(f"{line}no Python of this version: {what}", key="model.files", file=address) from None
