"""What an address says of itself: ``hdfs://host/path`` has a scheme, ``runs/digits-1`` is a path of this machine."""

from __future__ import annotations


def has_scheme(text: str) -> bool:
    """Return whether a text is an address with a scheme (``file://`` is one), not a plain path."""
    return "://" in text


def is_remote_address(text: str) -> bool:
    """Return whether a text is the address of something on other machines: of any scheme but ``file``."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme != "file"


def is_empty_address(text: str) -> bool:
    """Return whether an address names nothing, as a variable of a shell that is not set leaves it."""
    return not text.rpartition("://")[2].strip()
