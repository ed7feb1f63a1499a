r"""Templates over columns: ``{problem}\n{solution}`` is the text of a row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nnlib.core.errors import UsageError

_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_ESCAPES = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}

Span = tuple[int, int]
"""Where a part of a text begins and ends, in characters."""


@dataclass(frozen=True)
class Template:
    """The text of a row: constant parts, and the columns between them.

    ``parts``: (is a column, its name or the constant text).
    """

    parts: tuple[tuple[bool, str], ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        r"""Return the template that ``text`` stands for: ``{column}``, braces as ``{{`` and ``}}``, and ``\n``, ``\t``,
        ``\r``, ``\\``. Raises `UsageError` for a brace that stands alone and for a template without a column."""
        parts: list[tuple[bool, str]] = []
        start = 0
        for match in _PARTS.finditer(text):
            parts.append((False, _plain(text[start : match.start()])))
            start = match.end()
            if match[0] in ("{{", "}}"):
                parts.append((False, match[0][0]))
            elif match[1]:
                parts.append((True, match[1]))
            else:
                raise UsageError(
                    f"--template {text!r}: {match[0]!r} names no column", hint="a brace itself is {{ or }}"
                )
        parts.append((False, _plain(text[start:])))
        if not any(is_column for is_column, _ in parts):
            raise UsageError(f"--template {text!r} names no column", hint="write it like '{problem}\\n{solution}'")
        return cls(tuple(part for part in parts if part[1]))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the template, each once, in order."""
        return tuple(dict.fromkeys(name for is_column, name in self.parts if is_column))

    def fill(self, values: dict[str, str]) -> str:
        """Return the text of a row whose columns have these values."""
        return "".join(values[part] if is_column else part for is_column, part in self.parts)

    def spans(self, values: dict[str, str], counted: Sequence[str]) -> list[Span]:
        """Return where the columns ``counted`` stand in the text of a row, in order."""
        spans: list[Span] = []
        start = 0
        for is_column, part in self.parts:
            end = start + len(values[part] if is_column else part)
            if is_column and part in counted:
                spans.append((start, end))
            start = end
        return spans


def _plain(text: str) -> str:
    return _ESCAPES.sub(lambda match: _ESCAPED.get(match[1], match[0]), text)
