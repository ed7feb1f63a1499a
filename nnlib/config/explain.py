"""Explains in plain words what is wrong with a configuration: the key, what it got, what is allowed, the near name.

What is allowed is derived from the schema itself (its JSON schema), so no text can disagree with the check.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from nnlib.config.document import Document, Path
from nnlib.config.schema import Config

Problem = tuple[Path, str]
"""Where, and what is wrong in words."""


def dotted(path: Path) -> str:
    """Return a path as ``train.lr`` or ``model.hidden[1]``; the root is "the configuration"."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the configuration"


def shown(value: Any, spelling: str | None = None) -> str:
    """Return a value as its writer would recognize it, at most 60 characters."""
    text = spelling if spelling else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def near(word: str, words: Sequence[str]) -> str | None:
    """Return the one of ``words`` that was probably meant; None if none is near."""
    matches = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return matches[0] if matches else None


def explained(error: ValidationError, document: Document) -> list[Problem]:
    """Return pydantic's errors as one problem a key, in their order."""
    schema = _Schema(document.value)
    words: dict[Path, tuple[str, bool]] = {}
    for item in error.errors(include_url=False):
        path, in_union = key_path(item["loc"], document.value, item["type"])
        if path not in words:
            words[path] = (_words(item, path, document, schema), in_union)
    return [
        (path, message)
        for path, (message, in_union) in words.items()
        # A branch of a union that does not fit is no news when another branch says what exactly is wrong deeper down.
        if not (in_union and any(other[: len(path)] == path and other != path for other in words))
    ]


def key_path(location: Sequence[str | int], value: Any, kind: str = "") -> tuple[Path, bool]:
    """Return the keys in pydantic's location, without the names of union branches it mixes in, and whether it had any.

    Tags such as "optimizer=adam" do not count: what is wrong in a tagged union is wrong for the kind it names.
    """
    path: list[str | int] = []
    skipped = False
    for position, part in enumerate(location):
        last = position == len(location) - 1
        inside = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if inside:
            value = value[part]
            path.append(part)
        elif last and kind == "missing":
            path.append(part)
        elif "=" not in str(part):
            skipped = True
    return tuple(path), skipped


def _words(item: Any, path: Path, document: Document, schema: _Schema) -> str:
    kind = item["type"]
    node = schema.at(path)
    if kind == "extra_forbidden":
        return _unknown_key(path, schema)
    if kind == "missing":
        about = node.get("description")
        return f"is missing; needed: {about or schema.allowed(node)}"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    value = _value_at(document.value, path)
    if value is None and schema.keys(node):
        return f"is empty: put its keys below it ({', '.join(schema.keys(node))}) or remove the line"
    got = shown(value, document.spellings.get(path))
    text = f"got {got}; allowed: {schema.allowed(node)}"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 and "whole number" in text:
        return f"{text}; write {int(value)}"
    if isinstance(value, str):
        if (meant := near(value, schema.names(node))) is not None:
            return f"{text}; did you mean {meant}?"
        if _is_number(value) and "number" in text:
            return f"{text}; write it without quotes"
    return text


def _unknown_key(path: Path, schema: _Schema) -> str:
    *above, key = path
    siblings = schema.keys(schema.at(tuple(above)))
    elsewhere = [dotted(leaf) for leaf in schema.leaves() if leaf[-1] == key]
    meant = near(str(key), siblings)
    if meant is not None:
        meant = dotted((*above, meant))
    elif elsewhere:
        meant = elsewhere[0]
    hint = f"; did you mean {meant}?" if meant else ""
    return f"unknown key{hint or '; known here: ' + ', '.join(siblings)}"


def _item(value: Any, part: str | int) -> Any:
    """An item of a mapping or a list; None if there is none."""
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _value_at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Schema:
    """The JSON schema of `Config`, walked by key path."""

    def __init__(self, values: Any) -> None:
        """``values``: the configuration to explain, whose kinds decide between the members of a tagged union."""
        self._values = values
        self._root = Config.model_json_schema()
        self._definitions = self._root.get("$defs", {})

    def _resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        """``node`` with its reference followed; its own description stays."""
        for reference in [node.get("$ref"), *(part.get("$ref") for part in node.get("allOf", []))]:
            if reference:
                return {**self._definitions[reference.rsplit("/", 1)[1]], **node}
        return node

    def _branches(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        return [self._resolved(branch) for branch in node.get("anyOf", [node])]

    def at(self, path: Path) -> dict[str, Any]:
        """The schema of the value at a path; {} if no such key exists. Of a section: of the kind that it names."""
        members = [self._resolved(self._root)]
        value = self._values
        for part in path:
            branches = [branch for member in members for branch in self._branches(member)]
            candidates = [self._step(branch, part) for branch in branches]
            value = _item(value, part)
            node = next((candidate for candidate in candidates if candidate), {})
            members = self._members(self._resolved(node), value)
        return members[0]

    def _members(self, node: dict[str, Any], value: Any) -> list[dict[str, Any]]:
        """The members of a tagged union, that of the kind which ``value`` names first; else the node itself."""
        members = [self._resolved(member) for member in node.get("oneOf", [])]
        if not members:
            return [node]
        tag = members[0]["tag"]
        names = [_item(value, tag), node.get("default", {}).get(tag)]
        chosen = next((member for name in names for member in members if member["kind"] == name), members[0])
        return [chosen, *(member for member in members if member is not chosen)]

    @staticmethod
    def _step(node: dict[str, Any], part: str | int) -> dict[str, Any]:
        if isinstance(part, int):
            items = node.get("items", {})
            return items if isinstance(items, dict) else {}
        below = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        return below if isinstance(below, dict) else {}

    def keys(self, node: dict[str, Any]) -> list[str]:
        """The keys of a section; [] for any other value."""
        return [key for branch in self._branches(node) for key in branch.get("properties", {})]

    def names(self, node: dict[str, Any]) -> list[str]:
        """The words a value may be."""
        words: list[str] = []
        for branch in self._branches(node):
            words += [word for word in branch.get("enum", [branch.get("const")]) if isinstance(word, str)]
        return words

    def leaves(self, path: Path = ()) -> Iterator[Path]:
        """Every key of the configuration, sections left out."""
        for key in self.keys(self.at(path)):
            here = (*path, key)
            if self.keys(self.at(here)):
                yield from self.leaves(here)
            else:
                yield here

    def allowed(self, node: dict[str, Any]) -> str:
        """What a value may be, in words."""
        return " or ".join(self._allowed_branch(branch) for branch in self._branches(node))

    def _allowed_branch(self, node: dict[str, Any]) -> str:
        if "enum" in node:
            return " or ".join(", ".join(str(word) for word in node["enum"]).rsplit(", ", 1))
        if "const" in node:
            return str(node["const"])
        match node.get("type"):
            case "integer":
                return f"a whole number{_bounds(node)}"
            case "number":
                return f"a number{_bounds(node)}"
            case "boolean":
                return "true or false"
            case "null":
                return "null"
            case "string":
                return f"a text matching {node['pattern']}" if "pattern" in node else "a text"
            case "array":
                fewest, most = node.get("minItems"), node.get("maxItems")
                size = f" of at least {fewest}" if fewest else f" of at most {most}" if most else ""
                return f"a list{size}, each {self.allowed(self._resolved(node['items']))}"
            case None if not node.get("properties"):
                return "any value"
            case _:
                if keys := self.keys(node):
                    return f"a section with the keys {', '.join(keys)}"
                return f"a mapping to {self.allowed(self._resolved(node.get('additionalProperties') or {}))}"


def _bounds(node: dict[str, Any]) -> str:
    """The range of a number: " from 1 to 64", " above 0, at most 100"."""
    parts = []
    if "minimum" in node:
        parts.append(f"from {node['minimum']:g}")
    if "exclusiveMinimum" in node:
        parts.append(f"above {node['exclusiveMinimum']:g}")
    if "maximum" in node:
        parts.append(f"{'to' if 'minimum' in node else 'at most'} {node['maximum']:.15g}")
    if "exclusiveMaximum" in node:
        parts.append(f"below {node['exclusiveMaximum']:g}")
    return "".join(f" {part}" for part in parts)
