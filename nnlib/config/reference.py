"""The reference of all configuration keys, written from the schema itself so that it cannot differ from it.

``python -m nnlib.config.reference > docs/configuration.md`` renews the page; a test compares.
"""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from nnlib.config.identity import NOT_MATHEMATICS
from nnlib.config.schema import Config

_HEAD = """# Configuration

Every key of a configuration file, its values and its default. `nnjobs train FILE --set key=value` overrides one;
`--dry-run` shows the result. An unknown key is an error. Keys marked • do not change a single bit of the result and may
differ when a run is resumed; all others are its mathematics.

`data.path` and `run_dir` are relative to the directory the command is run in.

| key | values | default | meaning |
| --- | --- | --- | --- |
"""


def reference() -> str:
    """The page, as Markdown."""
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in _rows(Config, ""))


def _rows(section: type[BaseModel], above: str) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, field in section.model_fields.items():
        key = f"{above}{name}"
        inner = _section(field.annotation)
        optional = type(None) in get_args(field.annotation)
        if inner is not None and not optional:
            rows += _rows(inner, f"{key}.")
            continue
        mark = "" if any(key == other or key.startswith(f"{other}.") for other in NOT_MATHEMATICS) else None
        default = "required" if field.default is PydanticUndefined else _shown(field.default)
        rows.append(
            (f"`{key}`{' •' if mark == '' else ''}", _values(field.annotation), default, field.description or "")
        )
        if inner is not None:
            rows += _rows(inner, f"{key}.")
    return rows


def _section(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _values(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_values(kind) for kind in arguments if kind is not type(None))
    if origin is list:
        return f"list of {_values(arguments[0])}"
    if origin is dict:
        return f"{_values(arguments[0])}: {_values(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return {int: "whole number", float: "number", str: "text", bool: "true, false"}.get(annotation, str(annotation))


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


if __name__ == "__main__":
    print(reference(), end="")
