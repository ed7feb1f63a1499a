"""mrjob's view of HDFS, over `nnlib.storage`: no JVM starts to look at a file."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from pathlib import Path

from mrjob.fs.base import Filesystem

from nnlib.storage import Storage, file_at, has_scheme, storage


class StorageFilesystem(Filesystem):  # type: ignore[misc]
    """Serves mrjob the paths with a scheme, such as ``hdfs://``. No patterns are expanded."""

    def can_handle_path(self, path: str) -> bool:
        return has_scheme(path)

    def ls(self, path_glob: str) -> Iterator[str]:
        names = storage(path_glob).names()
        if not names and self.exists(path_glob):
            yield path_glob
        for name in names:
            yield from self.ls(posixpath.join(path_glob, name))

    def du(self, path_glob: str) -> int:
        return sum(self._at(path).size(name) for path in self.ls(path_glob) for name in [_name(path)])

    def exists(self, path_glob: str) -> bool:
        return self._at(path_glob).exists(_name(path_glob))

    def mkdir(self, path: str) -> None:
        """Do nothing: a folder is made with its first file."""

    def put(self, src: str, path: str) -> None:
        self._at(path).write(_name(path), Path(src).read_bytes())

    def rm(self, path_glob: str) -> None:
        self._at(path_glob).delete(_name(path_glob))

    def touchz(self, path: str) -> None:
        self._at(path).create(_name(path), b"")

    def md5sum(self, path: str) -> str:
        return hashlib.md5(self._at(path).read(_name(path)), usedforsecurity=False).hexdigest()

    def _cat_file(self, path: str) -> Iterator[bytes]:
        with self._at(path).open(_name(path)) as stream:
            yield from stream

    @staticmethod
    def _at(path: str) -> Storage:
        return file_at(path)[0]


def _name(path: str) -> str:
    return file_at(path)[1]
