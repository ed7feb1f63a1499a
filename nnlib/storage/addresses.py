"""What an address says of itself: ``hdfs://host/path`` has a scheme, ``runs/digits-1`` is a path of this machine."""

from __future__ import annotations

import os
from pathlib import Path

from nnlib.core.errors import UsageError


def has_scheme(text: str) -> bool:
    """Return whether a text is an address with a scheme (``file://`` is one), not a plain path."""
    return "://" in text


def is_remote_address(text: str) -> bool:
    """Return whether a text is the address of something on other machines: of any scheme but ``file``."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme != "file"


def path_in(address: str) -> str:
    """Return the path that an address of this machine names: a plain path, ``file://path`` or ``file://localhost/path``.

    Raises `UsageError` for ``file:/path``, which would be a folder called ``file:``.
    """
    if address.startswith("file:/") and not address.startswith("file://"):
        raise UsageError("the address lacks two slashes", hint=f"write {address.replace('file:/', 'file:///', 1)}")
    path = address.removeprefix("file://")
    if path != address and path.partition("/")[0] == "localhost":
        return path.removeprefix("localhost") or "/"
    return path


def is_empty_address(text: str) -> bool:
    """Return whether an address names nothing, as a variable of a shell that is not set leaves it."""
    return not text.rpartition("://")[2].strip()


def is_there(path: Path) -> bool:
    """Return whether a path leads to something; False, too, for a name that is too long to be one."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """Return a path of this machine from the root on; ``~`` is the home folder.

    Raises `UsageError` for a relative path where the current folder does not exist any more.
    """
    expanded = Path(os.path.expanduser(path))  # noqa: PTH111  (pathlib's fails for an unknown ~user)
    try:
        return expanded.absolute()
    except FileNotFoundError:
        raise UsageError(
            "the current folder was deleted, so there are no relative paths",
            hint="cd to another folder, or write the whole path",
            path=os.fspath(path),
        ) from None
