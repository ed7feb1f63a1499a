"""What a path of this machine stands for when it is written: a file to replace, or a stream.

A link is written through, an existing file keeps its mode and owner, and what is no regular file (a FIFO, a terminal,
``/dev/stdout``, ``/dev/null``) is never replaced by one: the data are written into it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

MOST_LINKS = 40
"""Links that are followed from one to the next, as Linux does."""

_DESCRIPTORS = re.compile(r"/dev/fd|/proc/(?:self|thread-self|\d+)(?:/task/\d+)?/fd")
"""Folders whose entries are open files of a process: their links are opened, not followed."""


@dataclass(frozen=True)
class WriteTarget:
    """Where the bytes for a path go.

    ``path`` is the regular file that they become (links resolved), or the stream to write them into. ``found`` is the
    state of the file that is there; None: there is none.
    """

    path: Path
    is_stream: bool
    found: os.stat_result | None

    def take_over_mode(self, descriptor: int) -> None:
        """Give a new file the owner (where this process may) and the mode of the file that it is to replace."""
        if self.found is None:
            return
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) != (self.found.st_uid, self.found.st_gid):
            with contextlib.suppress(OSError):  # only root may give files away
                os.fchown(descriptor, self.found.st_uid, self.found.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(self.found.st_mode))


def write_target(path: Path) -> WriteTarget:
    """Return what is written when ``path`` is. Raises `OSError` where nothing can be."""
    path, is_descriptor = _behind_links(path)
    if is_descriptor:
        return WriteTarget(path, True, None)
    try:
        found = path.stat()
    except FileNotFoundError:
        return WriteTarget(path, False, None)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if kind == stat.S_IFBLK:
        raise OSError(errno.EINVAL, "it is a disk, not a file")
    if kind == stat.S_IFSOCK:
        raise OSError(errno.EINVAL, "it is a socket, not a file")
    if kind == stat.S_IFREG and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only")
    return WriteTarget(path, kind != stat.S_IFREG, found)


def open_stream(target: WriteTarget) -> BinaryIO:
    """Open what is no regular file to write into it. Its position is the number of bytes written; it cannot be changed.

    An open file of this process (``/dev/stdout``) is written where it stands, as a shell's redirection expects; when
    its reader goes away (``| head``) the rest is dropped. Raises `OSError`.
    """
    number = _own_descriptor(target.path)
    if number is not None:
        return cast(BinaryIO, _Stream(_OpenFile(os.dup(number), "wb")))
    descriptor = os.open(target.path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY)
    return cast(BinaryIO, _Stream(io.FileIO(descriptor, "wb")))


class _OpenFile(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(memoryview(data).cast("B"))


class _Stream(io.BufferedWriter):
    """Counts what is written: writers of Parquet and archives ask for the position, which a FIFO does not have."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw)
        self._written = 0

    def write(self, data: Any, /) -> int:
        size = super().write(data)
        self._written += size
        return size

    def tell(self) -> int:
        return self._written

    def seekable(self) -> bool:
        return False


def _behind_links(path: Path) -> tuple[Path, bool]:
    """Return the path behind all links, and whether it is an open file of a process, whose link is not followed."""
    for _ in range(MOST_LINKS):
        path = Path(os.path.realpath(path.parent), path.name)
        if path.name.isdigit() and _DESCRIPTORS.fullmatch(str(path.parent)):
            return path, True
        if not path.is_symlink():
            return path, False
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _own_descriptor(path: Path) -> int | None:
    """Return the number of the open file of this process that a path stands for; None if it is something else."""
    folder = str(path.parent)
    own = folder == "/dev/fd" or folder.split("/")[1:3] == ["proc", str(os.getpid())]
    return int(path.name) if own and path.name.isdigit() and _DESCRIPTORS.fullmatch(folder) else None
