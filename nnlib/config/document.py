"""Reads a YAML text into plain values, remembering the line each came from.

Only what a configuration needs: mappings, lists and scalars. Tags, anchors, aliases and several documents are
refused, so nothing is constructed and nothing expands. Scalars follow the core schema of YAML 1.2 (section 10.3.2),
where ``1e-3`` is a number and ``no`` a word; PyYAML's own YAML 1.1 rules say the opposite.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from nnlib.core.errors import ConfigError

Path = tuple[str | int, ...]
"""Keys and list positions from the root to a value."""

MAX_BYTES = 1 << 20
MAX_NODES = 10_000
MAX_DEPTH = 20

# The C parser reads the same language some ten times faster; it is missing where PyYAML was built without libyaml.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass
class Document:
    """The values of a text, and what error messages about them need.

    ``origins``: where a path's value was written ("digits.yaml:12"); ``spellings``: how a plain scalar was written;
    ``problems``: (path, message) of what is wrong with the text but does not stop the reading; ``overridden``: paths of
    values that a command line gave.
    """

    value: Any
    origins: dict[Path, str] = field(default_factory=dict)
    spellings: dict[Path, str] = field(default_factory=dict)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    overridden: set[Path] = field(default_factory=set)


def plain_scalar(text: str) -> Any:
    """Return the value of an unquoted scalar: None, bool, int, float or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 400:  # longer than any number, and int() is quadratic
        return text
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def read_document(text: str, source: str, *, lines: bool = True) -> Document:
    """Parse one YAML document. ``source`` names it in messages, followed by the line unless ``lines`` is False.

    Raises `ConfigError` if it is not YAML or uses what is refused. Repeated keys go to ``problems``.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:  # a command line may carry any bytes; Python makes lone surrogates of them
        raise ConfigError(f"not UTF-8 text: {error.object[error.start : error.end]!a}", file=source) from None
    if size > MAX_BYTES:
        raise ConfigError(f"the text is longer than {MAX_BYTES} bytes", file=source)
    try:
        return _Reader(text, source, lines).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f"{source}:{mark.line + 1}" if mark and lines else source
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"not valid YAML: {reason}", file=position) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {str(error).splitlines()[0]}", file=source) from None


class _Reader:
    """Builds values from the parser's events; events still tell tags, anchors and aliases apart from values."""

    def __init__(self, text: str, source: str, lines: bool) -> None:
        self._events = iter(yaml.parse(text, Loader=_LOADER))
        self._source = source
        self._lines = lines
        self._nodes = 0
        self._document = Document(None)

    def read(self) -> Document:
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refuse(event, "a second document (---) begins here: one configuration is one document")
                self._document.value = self._value(next(self._events), ())
        return self._document

    def _value(self, event: Any, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise self._refuse(
                event, f"more than {MAX_NODES} values or {MAX_DEPTH} levels: no configuration needs that"
            )
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._refuse(event, "anchors (&) and aliases (*) are not allowed: write the value out")
        if event.tag is not None:
            raise self._refuse(event, f"the tag {event.tag} is not allowed: write a plain value")
        self._document.origins.setdefault(path, self._position(event))
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._mapping(path)

    def _scalar(self, event: Any, path: Path) -> Any:
        if not event.implicit[0]:  # quoted or block style: always a text
            return event.value
        self._document.spellings[path] = event.value
        return plain_scalar(event.value)

    def _sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refuse(event, "a key must be one word, not a list or a mapping")
            if event.anchor is not None or event.tag is not None:
                raise self._refuse(event, "anchors (&) and tags (!) are not allowed")
            key = event.value
            here = (*path, key)
            if key in items:
                self._document.problems.append((here, f"is given twice, here and in {self._position(event)}"))
                self._value(next(self._events), (*here, "(again)"))
                continue
            self._document.origins[here] = self._position(event)
            items[key] = self._value(next(self._events), here)
        return items

    def _position(self, event: Any) -> str:
        return f"{self._source}:{event.start_mark.line + 1}" if self._lines else self._source

    def _refuse(self, event: Any, reason: str) -> ConfigError:
        return ConfigError(reason, file=self._position(event))
