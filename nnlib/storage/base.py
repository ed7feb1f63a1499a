"""What every storage promises."""

from __future__ import annotations

import contextlib
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from nnlib.storage.traffic import Traffic

TEMPORARY = ".tmp"
"""Ends the names of files that are being written; they are hidden from `Storage.names`."""


@dataclass(frozen=True)
class Access:
    """What a process needs to reach a storage. Nothing here is a secret: it is written into jobs' descriptions."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables by name."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Environment variable -> path on this machine of a file whose copy there the variable is to name."""
    modules: tuple[str, ...] = ()
    """Modules that it imports when it reaches the storage. A server that forks tasks imports them once."""
    distributions: tuple[str, ...] = ()
    """Installed packages that it needs besides those that every task needs."""

    def __or__(self, other: Access) -> Access:
        """Return what reaches both storages."""
        return Access(
            {**self.environment, **other.environment},
            {**self.files, **other.files},
            tuple(dict.fromkeys((*self.modules, *other.modules))),
            tuple(dict.fromkeys((*self.distributions, *other.distributions))),
        )


class Storage(ABC):
    """A directory tree at one root address; names are relative, with ``/`` between the parts.

    Two kinds of write exist, and no other: `write` (readers see the whole new file or the old one) and `create`
    (exactly one of several writers wins). Nothing appends and nothing renames a directory, so every promise made here
    holds on local disks, HDFS and S3 alike. Every method raises `StorageError`, naming the file, when it fails.
    """

    root: str
    """The root's address, or its path on this machine."""
    is_remote = False
    """Whether the files are on other machines: they then cost messages, and no path of this machine leads to them."""
    is_read_by_hadoop = False
    """Whether Hadoop's own programs read its addresses, as jobs' inputs, outputs and archives."""
    traffic: Traffic
    """What was sent to it by this object."""
    journal_seconds = 2.0
    """Files that grow (logs, views) are rewritten at most this often: there is no append."""
    journal_growth = 0.0
    """Fraction by which they must have grown since, so that a long run does not send all of them in every round."""
    poll_seconds = 1.0
    """How often it may be asked, all the time, for a file that is to appear."""
    status_seconds = 2.0
    """How often a small file that shows what a process does may be written, all the time."""
    journal_latest_seconds = 600.0
    """What is new is written after this time, however little it is."""

    @property
    def uri(self) -> str:
        """The root's address with a scheme."""
        return self.root

    def local_path(self, name: str = "") -> Path | None:
        """Return where a file is on this machine; None if it is on others."""
        return None

    def is_stream(self, name: str) -> bool:
        """Return whether a name stands for something that is written into, not replaced: a FIFO, ``/dev/stdout``."""
        return False

    def location(self) -> tuple[str, tuple[str, ...]]:
        """Return what identifies the file system, and the names of the directories from its top to the root: two
        addresses of one directory have the same."""
        scheme, _, rest = self.uri.partition("://")
        host, _, path = rest.partition("/")
        return f"{scheme}://{host}", tuple(part for part in path.split("/") if part)

    def access(self) -> Access:
        """Return what a process on another machine needs to reach this storage."""
        return Access()

    def journal_is_due(self, seconds: float, size: float, new: float) -> bool:
        """Return whether to write a file that grows, ``seconds`` after its last writing; ``new`` of ``size`` (in the
        same unit) was added since."""
        if seconds < self.journal_seconds:
            return False
        return new >= self.journal_growth * size or seconds >= self.journal_latest_seconds

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the whole file. Raises `StorageError` if it is not there."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open the file for random reads (for Parquet)."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Replace the file as a whole: durable when this returns, never half visible."""

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Write several files in their order; all are durable when this returns."""
        for name, data in files.items():
            self.write(name, data)

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write the file only if nobody did before: False (and no change) if it exists already."""

    def create_from(self, name: str, source: BinaryIO) -> bool:
        """`create` the file from a stream that can seek and may be larger than memory: remote storages send it in
        parts."""
        return self.create(name, source.read())

    def commit(self, files: Mapping[str, bytes], last: str, data: bytes) -> bool:
        """`write_all` the files, then `create` the last one, which makes them count."""
        self.write_all(files)
        return self.create(last, data)

    @abstractmethod
    def names(self, under: str = "") -> list[str]:
        """Return the sorted names of files and directories directly under a directory ([] if it is not there)."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Return whether there is a file or directory of this name."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return the bytes of a file. Raises `StorageError` if it is not there."""

    @abstractmethod
    def sweep(self, under: str = "", *, of: Callable[[str], bool] | None = None) -> None:
        """Delete what killed writers have left under a directory; call only while no other writes there.

        ``of``: only what was to become a file directly in the directory whose name this function accepts, for a
        directory where others may write other files.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file or a directory tree; not being there is fine."""

    def delete_files(self, names: Sequence[str]) -> None:
        """Delete several files, none of which is a directory; not being there is fine."""
        for name in names:
            self.delete(name)

    @abstractmethod
    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Open a stream that becomes the file, durably, when the block ends without an error; else nothing is left."""


_TEMPORARY_NAME = re.compile(rf"\.(.+)\.[0-9a-f]{{8}}(?:\.old)?{re.escape(TEMPORARY)}", re.DOTALL)


def is_temporary(name: str, of: Callable[[str], bool] | None = None) -> bool:
    """Return whether a file's name is one that `temporary_name` makes, of a file whose name ``of`` accepts (None: of
    any). Other programs have hidden ``.tmp`` files, too."""
    parts = _TEMPORARY_NAME.fullmatch(name)
    return parts is not None and (of is None or of(parts[1]))


def temporary_name(name: str) -> str:
    """Return a hidden name in the file's folder to write it under; no two writers ever get the same."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}.{last}.{secrets.token_hex(4)}{TEMPORARY}"
