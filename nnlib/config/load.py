"""Makes a `Config` from a YAML file and ``a.b=value`` overrides, or one error that lists everything wrong."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from nnlib.config.code_files import model_sections, with_hashes
from nnlib.config.code_trust import require_trusted
from nnlib.config.document import MAX_BYTES, Document, Path, read_document
from nnlib.config.explain import Problem, dotted, explained, key_path, near, shown
from nnlib.config.options import torch_options
from nnlib.config.runners import RUNNERS
from nnlib.config.schema import Config, stored_config
from nnlib.config.tagged import unknown_name
from nnlib.config.unread import chosen_kinds, unread_options
from nnlib.core.errors import ConfigError
from nnlib.storage import file_at, has_scheme, is_empty_address
from nnlib.storage.addresses import absolute_path
from nnlib.storage.credentials import refuse_credentials

RUNNER = ("runtime", "runner")
"""The key that names the runner."""


def load_config(path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> Config:
    """Read the configuration in a YAML file at a path or address, changed by ``overrides`` such as ``train.lr=0.1``.

    ``path`` None starts from nothing, so the overrides must say ``data.path``. A relative ``data.path``, in the file
    or an override, is relative to the current directory, as paths on a command line are; the result has it absolute.
    Raises one `ConfigError` for all problems together: a line each, with file and line (or the override), key, what
    it got and what is allowed.
    """
    if path is None:
        return parse_config("", "", overrides)
    address = os.fspath(path)
    data = _read_address(address) if has_scheme(address) else _read_file(pathlib.Path(path))
    return parse_config(_text(data, address), address, overrides, asks_trust=True)


def parse_config(
    text: str, source: str, overrides: Sequence[str] = (), *, every_option: bool = False, asks_trust: bool = False
) -> Config:
    """Make a `Config` of a text, as `load_config` does of a file; ``source`` names it in messages.

    ``every_option``: accept options that the chosen kinds do not read, as in a file that an earlier version resolved.
    ``asks_trust``: refuse the configuration of a run (``config.yaml``) whose code is not trusted here.
    """
    document = read_document(text, source)
    if document.value is None:
        document.value = {}
    if not isinstance(document.value, dict):
        got = "a list" if isinstance(document.value, list) else shown(document.value)
        raise ConfigError(f"must be a mapping of keys to values, got {got}", file=source)
    # A run's config.yaml has two keys more. It can be trained again as it is.
    is_resolved = document.value.pop("format_version", None) is not None
    document.value.pop("versions", None)
    kinds = chosen_kinds(document.value)
    for override in overrides:
        _apply(override, document)
    unread = unread_options(document, kinds, every_option=every_option or is_resolved)
    config = _validated(document, source, unread, is_resolved)
    if is_resolved and asks_trust:
        for options in model_sections(config):
            require_trusted(options, source)
    return config


def _read_address(address: str) -> bytes:
    folder, name = file_at(address)
    if not folder.exists(name):
        raise ConfigError("no such configuration file", file=address)
    with folder.open(name) as stream:
        return stream.read(MAX_BYTES + 1)


def _read_file(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        meant = near(path.name, _configurations_in(path.parent))
        hint = f"did you mean {path.with_name(meant)}?" if meant else None
        raise ConfigError("no such configuration file", file=str(path), hint=hint) from None
    except OSError as error:
        raise ConfigError(f"cannot read the configuration: {error.strerror}", file=str(path)) from None


def _text(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        raise ConfigError(f"larger than {MAX_BYTES} bytes: this is no configuration", file=file)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 text: byte {error.start} is {data[error.start]:#04x}", file=file) from None


def _configurations_in(folder: pathlib.Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith((".yaml", ".yml")))
    except OSError:
        return []


def _apply(override: str, document: Document) -> None:
    """Put one ``a.b=value`` into the document."""
    source = f"--set {shown(override, override)}"
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    # A sweep's keys have dots themselves.
    path: Path = ("sweep", ".".join(parts[1:])) if parts[0] == "sweep" and parts[1:] else tuple(parts)
    if not equals or not all(path):
        raise ConfigError("an override is KEY=VALUE, such as train.lr=0.1", override=source)
    if not text.strip():
        raise ConfigError(f"{name} has no value; to unset it write {name}=null", override=source)
    value = read_document(text, source, lines=False)
    section = document.value
    for depth, part in enumerate(path[:-1], start=1):
        if section.get(part) is None:
            section[part] = {}
            document.origins[path[:depth]] = source
        section = section[part]
        if not isinstance(section, dict):
            above = dotted(path[:depth])
            document.problems.append((path, f"{above} is {shown(section)}, which has no keys below it"))
            document.origins.setdefault(path, source)
            return
    _forget(path, document)
    document.overridden.add(path)
    section[path[-1]] = value.value
    document.origins |= {(*path, *below): origin for below, origin in value.origins.items()}
    document.spellings |= {(*path, *below): spelling for below, spelling in value.spellings.items()}
    document.problems += [((*path, *below), message) for below, message in value.problems]


def _forget(path: Path, document: Document) -> None:
    """Drop what is remembered about a value that is replaced."""
    for table in (document.origins, document.spellings):
        for other in [other for other in table if other[: len(path)] == path]:
            del table[other]
    document.problems = [problem for problem in document.problems if problem[0][: len(path)] != path]


def _validated(document: Document, source: str, unread: Sequence[Problem], is_resolved: bool) -> Config:
    config, problems = _validate(document, is_resolved)
    problems = [*document.problems, *problems, *unread, *_unknown_runner(document)]
    if config is None or problems:
        raise _error(problems, document, source)
    tracking = config.tracking
    named: dict[str, object] = {"data.path": config.data.path, "run_dir": config.run_dir}
    named |= {"tracking.tensorboard": tracking.tensorboard, "tracking.mlflow": tracking.mlflow}
    for key, address in named.items():
        if isinstance(address, str):
            refuse_credentials(address, key=key)
            if not is_resolved:
                _refuse_empty(address, key, document, source)
    data = config.data.model_copy(update={"path": _absolute(config.data.path)})
    return _with_files(config.model_copy(update={"data": data}), document, source, is_resolved)


def _with_files(config: Config, document: Document, source: str, is_resolved: bool) -> Config:
    """The configuration with the hashes of the files that its model names. What the file says of them is relative to
    its folder, what an override says to the current one. A resolved file has the hashes already."""
    folder = source.rpartition("/")[0] if "/" in source else ""
    bases = {}
    for key in ("factory", "files", "from"):
        by_command = any(("model", key)[:end] in document.overridden for end in (1, 2))
        bases[key] = None if by_command else folder
    if is_resolved and None not in bases.values():
        return config
    if is_resolved and torch_options(config.model) is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"sha256": {}})})
    return with_hashes(config, files=bases["files"] or "", weights=bases["from"] or "")


def _refuse_empty(address: str, key: str, document: Document, source: str) -> None:
    """Refuse an empty address, as an unset variable of a shell leaves it: it would mean the current directory."""
    if is_empty_address(address):
        problem = (tuple(key.split(".")), "is empty: name a file or folder (. is the current one)")
        raise _error([problem], document, source)


def _validate(document: Document, is_resolved: bool) -> tuple[Config | None, list[Problem]]:
    try:
        return (stored_config if is_resolved else Config.model_validate)(document.value), []
    except ValidationError as error:
        if _respell(error, document):
            return _validate(document, is_resolved)
        return None, explained(error, document)


def _respell(error: ValidationError, document: Document) -> bool:
    """Where a text is wanted, take unquoted 2024 or true for the text it is written as."""
    changed = False
    for item in error.errors(include_url=False):
        path = key_path(item["loc"], document.value)[0]
        if item["type"] == "string_type" and item["input"] is not None and path in document.spellings:
            section: Any = document.value
            for part in path[:-1]:
                section = section[part]
            section[path[-1]] = document.spellings[path]
            changed = True
    return changed


def _unknown_runner(document: Document) -> list[Problem]:
    """Return a problem if the runner is none of the table's: a new one is one line there, and legal at once."""
    runtime = document.value.get("runtime")
    name = runtime.get("runner") if isinstance(runtime, dict) else None
    if not isinstance(name, str) or name in RUNNERS:
        return []
    got = shown(name, document.spellings.get(RUNNER))
    return [(RUNNER, unknown_name(got, RUNNERS))]


def _error(problems: Sequence[Problem], document: Document, source: str) -> ConfigError:
    order = {path: position for position, path in enumerate(document.origins)}  # as written, overrides last

    def written(path: Path) -> Path:
        return next((path[:end] for end in range(len(path), 0, -1) if path[:end] in order), ())

    lines = []
    for path, message in sorted(problems, key=lambda problem: order.get(written(problem[0]), -1)):
        origin = document.origins[nearest] if (nearest := written(path)) else source
        lines.append(": ".join(part for part in (origin, dotted(path), message) if part))
    lines = list(dict.fromkeys(lines))
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError(f"the configuration has {len(lines)} problems:\n  " + "\n  ".join(lines))


def _absolute(address: str) -> str:
    if has_scheme(address):
        return address
    return str(absolute_path(address))
