"""Refuses options in a configuration that its chosen kinds do not read: they would be ignored in silence.

Accepted, though another kind reads them, are options

* in a file that an earlier version resolved, which lists the options of all kinds;
* that some kind of a sweep over kinds reads;
* in a file whose own kind reads them, where the command line chooses another kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnlib.config.document import Document, Path
from nnlib.config.explain import Problem
from nnlib.config.kinds import TABLES, Kinds

Chosen = Mapping[str, frozenset[str]]
"""Section, dotted -> the kinds it names: one, or those of a sweep; empty if one of them does not exist."""


def chosen_kinds(values: Any) -> Chosen:
    """Return the kinds that a configuration (plain values, unchecked) names."""
    return {table.key: _chosen(table, values) for table in TABLES}


def unread_options(document: Document, in_file: Chosen, *, every_option: bool) -> list[Problem]:
    """Return a problem for each option that no chosen kind reads.

    ``document`` has the overrides already, ``in_file`` are the kinds that the file named without them. With
    ``every_option`` only what the overrides say is checked.
    """
    problems: list[Problem] = []
    for table in TABLES:
        chosen = _chosen(table, document.value)
        if not chosen:
            continue
        for path, option in _options(table, document.value):
            readers = set(table.readers(option))
            by_command = any(path[:end] in document.overridden for end in range(1, len(path) + 1))
            accepted = chosen if by_command else chosen | in_file[table.key]
            if readers and not readers & accepted and (by_command or not every_option):
                problems.append((path, _message(table, sorted(chosen), table.readers(option))))
    return problems


def _chosen(table: Kinds[Any], values: Any) -> frozenset[str]:
    swept = _at(values, ("sweep", f"{table.key}.{table.tag}"))
    section = _at(values, table.path)
    name = section.get(table.tag, table.default) if isinstance(section, dict) else table.default
    names = swept if isinstance(swept, list) else [name]
    known = all(isinstance(name, str) and name in table for name in names)
    return frozenset(names) if known else frozenset()


def _options(table: Kinds[Any], values: Any) -> list[tuple[Path, str]]:
    """(path, option) of the keys in a table's section, and of those that a sweep changes there."""
    section, sweep = _at(values, table.path), _at(values, ("sweep",))
    options: list[tuple[Path, str]] = []
    if isinstance(section, dict):
        options += [((*table.path, key), key) for key in section]
    if isinstance(sweep, dict):
        above = f"{table.key}."
        options += [(("sweep", key), key.removeprefix(above)) for key in sweep if key.startswith(above)]
    return options


def _at(values: Any, path: Path) -> Any:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _message(table: Kinds[Any], chosen: list[str], readers: list[str]) -> str:
    text = f"the {table.noun} {chosen[0]} does" if len(chosen) == 1 else f"the {table.noun}s {_listed(chosen)} do"
    return f"{text} not read this key; {_listed(readers)} {'does' if len(readers) == 1 else 'do'}"


def _listed(words: list[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
