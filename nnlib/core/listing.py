"""Lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return the names, ``most`` of them at most, between commas; dots stand for the others."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
