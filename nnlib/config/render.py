"""Writes a resolved configuration as YAML, and reads it back to an equal one."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

import yaml

import nnlib
from nnlib.config.document import plain_scalar, read_document
from nnlib.config.earlier import lost_keys
from nnlib.config.kinds import distributions_of
from nnlib.config.load import parse_config
from nnlib.config.schema import Config
from nnlib.config.section import Section
from nnlib.core.errors import ConfigError

PACKAGES = ("numpy", "scipy", "pyarrow", "mrjob")
"""Packages whose versions are recorded: those that compute, decode or carry the numbers."""


class _Dumper(yaml.SafeDumper):
    """Lists on one line; texts quoted wherever our reader (YAML 1.2) would take them for something else."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(plain_scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)


def versions(models: Iterable[Section] = ()) -> dict[str, str]:
    """Return the versions of nnjobs, Python and the packages that decide numbers; also of those that models of these
    sections need, where they are installed."""
    found = {"nnjobs": nnlib.__version__, "python": platform.python_version()}
    found |= {package: metadata.version(package) for package in PACKAGES}
    for package in distributions_of(models):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def to_yaml(config: Config) -> str:
    """Write every key with its value, defaults included, after ``format_version`` and the versions that resolved it."""
    head = {"format_version": nnlib.FORMAT_VERSION, "versions": versions([config.model])}
    values = head | config.model_dump(mode="json")
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


def from_resolved(text: str, source: str = "config.yaml", overrides: Sequence[str] = ()) -> Config:
    """Read what `to_yaml` wrote, with overrides as in `load_config`.

    Raises `ConfigError` for a file of a later format, and for one that was cut and so lacks keys of every version.
    """
    value = read_document(text, source).value
    version = value.get("format_version") if isinstance(value, dict) else None
    if not isinstance(version, int):
        raise ConfigError("has no format_version: not the config.yaml of a run", file=source)
    if version > nnlib.FORMAT_VERSION:
        raise ConfigError(
            f"has format_version {version}, this nnjobs knows up to {nnlib.FORMAT_VERSION}",
            file=source,
            hint="use the nnjobs version that the file's `versions` names, or a later one",
        )
    config = parse_config(text, source)
    if lost := lost_keys(config, value):
        raise ConfigError(
            f"lacks {', '.join(lost[:5])}{' and more' if lost[5:] else ''}: the file was cut or altered",
            file=source,
            hint="bring back a copy of it",
        )
    return parse_config(text, source, overrides) if overrides else config
