"""A folder that a command writes: claimed first, so that nothing of others is replaced and no two commands write it.

The claim is a lease (`nnlib.storage.lease`) whose file, ``.nnjobs-writing-000000.json``, is written before anything
else, names what will be written and is deleted last. After a kill it stays, and says to the next command which files
are a killed one's leavings, not somebody's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nnlib.core.errors import StorageError, UsageError
from nnlib.storage.addresses import is_there
from nnlib.storage.base import Storage
from nnlib.storage.lease import Lease, LeaseKind, lease_facts

MARKER = ".nnjobs-writing-"
"""Begins the names of the files of claims."""

_KIND = LeaseKind(
    prefix=MARKER,
    busy="another nnjobs is writing here",
    where="output",
    dead="what a killed one has left",
    stays=False,
)

_PART = re.compile(r"part-(\d{5,})\.parquet")


@dataclass(frozen=True)
class FolderContent:
    """Names of files and folders directly in a folder: ``names``, and ``parts`` numbered files from
    ``part-00000.parquet`` on."""

    names: frozenset[str] = frozenset()
    parts: int = 0

    @classmethod
    def of(cls, *names: str, parts: int = 0) -> FolderContent:
        """Return the content with these names."""
        return cls(frozenset(names), parts)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        part = _PART.fullmatch(name)
        number = int(part[1]) if part else self.parts
        return name in self.names or (number < self.parts and name == f"part-{number:05d}.parquet")

    def __or__(self, other: FolderContent) -> FolderContent:
        return FolderContent(self.names | other.names, max(self.parts, other.parts))

    def to_json(self) -> dict[str, Any]:
        """Return the content as JSON values; `from_json` is the inverse."""
        return {"names": sorted(self.names), "parts": self.parts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FolderContent:
        """Return the content that `to_json` wrote."""
        return cls(frozenset(map(str, data["names"])), int(data["parts"]))


NOTHING = FolderContent()


@contextlib.contextmanager
def claimed_folder(
    files: Storage, content: FolderContent, ours: Callable[[], FolderContent] = lambda: NOTHING
) -> Iterator[FolderContent]:
    """Claim a folder for the block, which writes ``content`` there.

    A folder that was not there is deleted at the end if nothing is in it.

    Args:
        files: the folder, which need not be there.
        content: what the block may write.
        ours: returns what is there of an earlier command of ours and may be replaced. Raises where it may not.

    Yields:
        What commands that were killed may have left.

    Raises:
        UsageError: a file of others has a name of ``content``.
        StorageError: another live command has claimed the folder, it is a file, or it cannot be written.
    """
    path = files.local_path()
    if path is not None and is_there(path) and not path.is_dir():
        raise StorageError("the output is a folder, and this is a file", hint="choose another -o", output=files.root)
    with _deleted_if_empty(files):
        left = _left_behind(files)
        there = ours()
        _refuse_others(files, content, there | left)
        with Lease(files, _KIND, facts={"writes": (content | left | there).to_json()}):
            # Again: another command may have ended meanwhile.
            _refuse_others(files, content, ours() | left)
            files.sweep(of=lambda name: name in content or name in left or name.startswith(MARKER))
            yield left


def delete_content(files: Storage, content: FolderContent, *, but: FolderContent = NOTHING) -> None:
    """Delete the files of ``content`` that are in a folder, except those of ``but``."""
    for name in files.names():
        if name in content and name not in but:
            files.delete(name)


def _left_behind(files: Storage) -> FolderContent:
    left = NOTHING
    for writes in lease_facts(files, MARKER, "writes"):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            left |= FolderContent.from_json(cast(Mapping[str, Any], writes))
    return left


def _refuse_others(files: Storage, content: FolderContent, ours: FolderContent) -> None:
    found = [name for name in files.names() if name in content and name not in ours]
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UsageError(
            f"this file{more} would be replaced, and nnjobs has not made it",
            hint="move it away, or choose another folder",
            file=f"{files.root}/{found[0]}",
        )


@contextlib.contextmanager
def _deleted_if_empty(files: Storage) -> Iterator[None]:
    path = files.local_path()
    made = [] if path is None else list(_missing(path))
    existed = path is not None or files.exists("")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for each in made:
                each.rmdir()  # fails where something is in it
        if not existed and not files.names():
            files.delete("")


def _missing(path: Path) -> Iterable[Path]:
    """Yield a folder and those above it that are not there, the deepest first."""
    for each in (path, *path.parents):
        if is_there(each):
            return
        yield each
