"""The reference of all configuration keys, written from the schema itself so that it cannot differ from it.

``python -m nnlib.config.reference > docs/configuration.md`` renews the page; a test compares.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from nnlib.config.identity import NOT_MATHEMATICS
from nnlib.config.kinds import TABLES, Kinds
from nnlib.config.schema import Config
from nnlib.config.tagged import kinds_of

_HEAD = """# Configuration

Every key of a configuration file, its values and its default. `nnjobs train FILE --set key=value` overrides one;
`--dry-run` shows the result. An unknown key is an error. Keys marked • do not change a single bit of the result and may
differ when a run is resumed; all others are its mathematics.

`data.path` and `run_dir` are relative to the directory the command is run in.

A section whose first key names a kind has the keys of this kind: the meaning of such a key begins with the kinds that
read it. A key that only other kinds read is an error. It is accepted in the `config.yaml` of a run of an earlier
version, which lists them all, and with a `sweep` over kinds of which one reads it.

| key | values | default | meaning |
| --- | --- | --- | --- |
"""

Row = tuple[str, str, str, str]
"""Key, values, default, meaning."""


def reference() -> str:
    """Return the page, as Markdown."""
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in _rows(Config, ""))


def _rows(section: type[BaseModel], above: str) -> list[Row]:
    rows: list[Row] = []
    for name, field in section.model_fields.items():
        key = f"{above}{name}"
        tables = [table for table in TABLES if table.key == key]
        inner = _section(field.annotation)
        optional = type(None) in get_args(field.annotation)
        if tables:
            rows += _kind_rows(tables[0], kinds_of(field.annotation), f"{key}.")
        elif inner is not None and not optional:
            rows += _rows(inner, f"{key}.")
        else:
            rows.append(_row(key, field))
            if inner is not None:
                rows += _rows(inner, f"{key}.")
    return rows


def _row(key: str, field: FieldInfo) -> Row:
    is_other = any(key == other or key.startswith(f"{other}.") for other in NOT_MATHEMATICS)
    default = "required" if field.default is PydanticUndefined else _shown(field.default)
    return f"`{key}`{' •' if is_other else ''}", _values(field.annotation), default, field.description or ""


def _kind_rows(table: Kinds[Any], members: Mapping[str, type[BaseModel]], above: str) -> list[Row]:
    """The rows of a section that names a kind: each key once for all kinds in which it is the same."""
    about = "; ".join(f"{name}: {kind.about}" for name, kind in table.items())
    tag = f"`{above}{table.tag}`", ", ".join(f"`{name}`" for name in table), f"`{table.default}`", about
    readers: dict[tuple[str, tuple[Row, ...]], list[str]] = {}
    for name, member in members.items():
        for option in [option for option in member.model_fields if option != table.tag]:
            rows = tuple(row for row in _rows(member, above) if _is_of(row, f"{above}{option}"))
            readers.setdefault((option, rows), []).append(name)
    result: list[Row] = [tag]
    options = list(dict.fromkeys(option for option, _ in readers))
    for option in sorted(options, key=lambda option: all(option in member.model_fields for member in members.values())):
        for (other, rows), names in readers.items():
            if other == option and len(names) == len(members):
                result += rows
            elif other == option:
                result += [(*row[:3], f"{', '.join(names)}: {row[3]}") for row in rows]
    return result


def _is_of(row: Row, key: str) -> bool:
    """Whether a row is that of a key, or of one below it."""
    name = row[0].partition("`")[2].partition("`")[0]
    return name == key or name.startswith(f"{key}.")


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
    return _WORDS.get(annotation, str(annotation))


_WORDS: Mapping[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true, false",
    Any: "anything that JSON has",
}


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


if __name__ == "__main__":
    print(reference(), end="")
