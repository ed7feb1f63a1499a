"""For clients of HDFS whose rename cannot overwrite (libhdfs, ``hadoop fs``): replacing a file takes two renames.

The old file steps aside as ``.NAME.HEX.old.tmp``, the new one takes its name, the old one is deleted. A reader who
comes between finds the old file there, and a killed writer's is put back by `sweep`: a reader reads one of the two,
whole. Only `Storage.names` may miss the name for a moment.
"""

from __future__ import annotations

import posixpath
import time
from abc import ABC, abstractmethod
from typing import BinaryIO

from nnlib.core.errors import StorageError
from nnlib.storage.base import TEMPORARY, temporary_name
from nnlib.storage.hdfs.client import AlreadyThereError, FileStatus, HdfsClient, NotThereError

ASIDE = f".old{TEMPORARY}"
READ_ATTEMPTS = 10
"""Times that a reader tries to read a file that is just being replaced, 50 ms apart at least."""


class ReplaceByRenames(HdfsClient, ABC):
    """An HDFS client on top of a rename that fails where the target exists."""

    @abstractmethod
    def _status(self, path: str) -> FileStatus | None: ...

    @abstractmethod
    def _read(self, path: str, offset: int, length: int | None) -> bytes: ...

    @abstractmethod
    def _rename(self, source: str, target: str) -> None:
        """Raises `AlreadyThereError` or `NotThereError`. Atomic."""

    @abstractmethod
    def list(self, path: str) -> list[FileStatus]: ...

    @abstractmethod
    def upload(self, path: str, data: bytes | BinaryIO, *, private: bool) -> None: ...

    @abstractmethod
    def mkdirs(self, path: str, *, private: bool) -> None: ...

    @abstractmethod
    def delete(self, path: str, *, wait: bool = True) -> None: ...

    def status(self, path: str) -> FileStatus | None:
        status = self._status(path)
        aside = self._aside(path) if status is None else None
        return status if aside is None else self._status(aside) or self._status(path)

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        for _ in range(READ_ATTEMPTS):
            try:
                return self._read(path, offset, length)
            except NotThereError:
                aside = self._aside(path)
                if aside is None and self._status(path) is None:
                    raise
            try:
                if aside is not None:
                    return self._read(aside, offset, length)
            except NotThereError:
                time.sleep(0.05)  # the new one is there now
        raise StorageError("is being replaced all the time", file=path)

    def rename(self, source: str, target: str, *, overwrite: bool, id: int = 0) -> None:
        there = self._status(target)
        if there is not None and there.directory:  # Hadoop would move the file into it
            raise AlreadyThereError("is a directory", file=target)
        if not overwrite:
            if self.status(target) is not None:
                raise AlreadyThereError("is there already", file=target)
            self._rename(source, target)
            return
        for _ in range(READ_ATTEMPTS):
            aside = temporary_name(target).removesuffix(TEMPORARY) + ASIDE
            try:
                self._rename(target, aside)
            except NotThereError:
                aside = ""
            try:
                self._rename(source, target)
            except AlreadyThereError:
                continue  # another writer was quicker: its file steps aside next
            finally:
                if aside:
                    self.sweep(aside)
            return
        raise StorageError("several processes write it at once", file=target)

    def sweep(self, path: str) -> None:
        if path.endswith(ASIDE):
            folder, name = posixpath.split(path)
            target = posixpath.join(folder, name.removeprefix(".").removesuffix(ASIDE).rpartition(".")[0])
            try:
                self._rename(path, target)  # only if its writer never came to put the new one there
                return
            except (AlreadyThereError, NotThereError):
                pass
        self.delete(path)

    def _aside(self, path: str) -> str | None:
        """Where a file stands while it is being replaced."""
        folder, name = posixpath.split(path)
        for entry in self.list(folder):
            if entry.name.startswith(f".{name}.") and entry.name.endswith(ASIDE):
                return posixpath.join(folder, entry.name)
        return None
