"""The calls that `nnlib.storage.hdfs.storage` makes of a client of HDFS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Protocol

from nnlib.core.errors import StorageError


@dataclass(frozen=True)
class FileStatus:
    """A file or directory. ``id`` is the NameNode's number of it, which a rename keeps; 0 if the client has none."""

    name: str
    directory: bool
    size: int
    id: int = 0


class NotThereError(StorageError):
    """There is no such file or directory."""


class AlreadyThereError(StorageError):
    """Something has this name already."""


class HdfsClient(Protocol):
    """A client of HDFS, whose paths are absolute.

    Every call raises `StorageError`; those that need a file raise `NotThereError`.
    ``wait``: wait for a service that is away (as long as configured); False: try once, for cleaning up.
    """

    @property
    def ranged(self) -> bool:
        """Whether a part of a file can be read for less than the whole."""
        ...

    def status(self, path: str) -> FileStatus | None:
        """Return what is at a path; None if nothing is."""
        ...

    def list(self, path: str) -> list[FileStatus]:
        """Return what is directly under a directory; [] for a file or where nothing is."""
        ...

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a file's bytes from ``offset``, at most ``length``."""
        ...

    def upload(self, path: str, data: bytes | BinaryIO, *, private: bool) -> None:
        """Write a file anew, with its directories; ``private``: for its owner alone. A half-written one may stay."""
        ...

    def rename(self, source: str, target: str, *, overwrite: bool, id: int = 0) -> None:
        """Give a file its final name in one step; exactly one of several renames to one name succeeds unless they
        ``overwrite``. With ``id`` of the source a lost reply is not mistaken for a lost race.

        Raises `AlreadyThereError`.
        """
        ...

    def sweep(self, path: str) -> None:
        """Delete what a killed writer has left."""
        ...

    def mkdirs(self, path: str, *, private: bool) -> None:
        """Make a directory and those above it; ``private``: for its owner alone."""
        ...

    def delete(self, path: str, *, wait: bool = True) -> None:
        """Delete a file or a tree; not being there is fine."""
        ...
