"""Lists of names in one argument of a command line."""

from __future__ import annotations

import re

_LISTED = re.compile(r"""\s*(?:"((?:[^"]|"")*)"\s*(?=,|$)|([^,]*))(?:,|$)""")


def split_names(text: str | None) -> tuple[str, ...]:
    """Split names at commas. A name with a comma is in double quotes; a double quote in it is doubled."""
    names = (quoted.replace('""', '"') if quoted else bare.strip() for quoted, bare in _LISTED.findall(text or ""))
    return tuple(name for name in names if name)
