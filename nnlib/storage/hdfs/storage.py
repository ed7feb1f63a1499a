"""Files in HDFS, by any client of it: WebHDFS, libhdfs or ``hadoop fs``.

A file is written under a temporary name in its folder and then renamed, which the NameNode does in one step.
"""

from __future__ import annotations

import contextlib
import io
import posixpath
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from nnlib.core.errors import StorageError
from nnlib.storage import fault_hook
from nnlib.storage.base import TEMPORARY, Access, Storage, is_temporary, temporary_name
from nnlib.storage.hdfs.choose_client import client_of
from nnlib.storage.hdfs.client import AlreadyThereError, HdfsClient
from nnlib.storage.hdfs.hadoop_config import locate
from nnlib.storage.ranged_file import RangedFile
from nnlib.storage.traffic import PROCESS, Traffic
from nnlib.storage.upload_buffer import upload_buffer, writing_to

SMALL_BYTES = 4 << 20
"""Files up to this size are opened by reading them whole."""

READ_AHEAD_BYTES = 4 << 20
"""Two calls fetch this much; reading on by single MiBs would take thrice as long."""

SLOW_POLL_SECONDS = 30.0
"""`Storage.poll_seconds` of a client whose calls take a second of a processor."""

UPLOADS = 8
"""Files uploaded at once. Closing a file often takes 400 ms, in which a DataNode only waits for its next heartbeat."""


class HdfsStorage(Storage):
    """A directory in HDFS. ``private``: it is made for its owner alone, and so is what lies below it."""

    is_remote = True
    is_read_by_hadoop = True
    journal_seconds = 30.0
    journal_growth = 0.125
    poll_seconds = 2.0
    status_seconds = 5.0

    def __init__(self, address: str, *, private: bool = False, client: HdfsClient | None = None) -> None:
        hdfs, self._path = locate(address)
        self.root = f"{hdfs.scheme}://{hdfs.authority}{self._path if self._path != '/' else ''}"
        self._private = private
        self._made = not private
        self._hdfs = hdfs
        self._shared_client = client or client_of(hdfs)
        if not self._shared_client.ranged:  # `hadoop fs`: every call starts a JVM
            self.poll_seconds, self.status_seconds = SLOW_POLL_SECONDS, SLOW_POLL_SECONDS
        self.traffic = Traffic(PROCESS)

    def location(self) -> tuple[str, tuple[str, ...]]:
        """``hdfs://`` and ``webhdfs://`` lead to the same NameNodes by different ports."""
        hosts = sorted({urlsplit(url).hostname or "" for url in self._hdfs.urls})
        return f"hdfs://{','.join(hosts)}", tuple(part for part in self._path.split("/") if part)

    def access(self) -> Access:
        return self._hdfs.access()

    @property
    def _client(self) -> HdfsClient:
        """The client, for one call of the service."""
        self.traffic.count_request()
        return self._shared_client

    def read(self, name: str) -> bytes:
        with self._explained(name):
            return self._client.read(self._at(name))

    def open(self, name: str) -> BinaryIO:
        path = self._at(name)
        with self._explained(name):
            status = self._client.status(path)
            if status is None:
                raise StorageError("no such file or directory")
            if status.directory:
                raise StorageError("cannot read: it is a directory")
            if status.size <= SMALL_BYTES or not self._shared_client.ranged:
                return io.BytesIO(self._client.read(path))
        return cast(BinaryIO, io.BufferedReader(_RemoteFile(self, name, status.size), READ_AHEAD_BYTES))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return the bytes ``offset`` to ``offset + length`` of a file that has that many. Raises `StorageError`."""
        with self._explained(name):
            data = self._client.read(self._at(name), offset, length)
            if len(data) != length:
                raise StorageError(f"{len(data)} bytes came of {length} at {offset}: did it change meanwhile?")
            return data

    def write(self, name: str, data: bytes) -> None:
        self.write_all({name: data})

    def write_all(self, files: Mapping[str, bytes]) -> None:
        with self._uploaded(files) as temporaries:
            for name, temporary in temporaries:
                self._rename(temporary, name)

    def commit(self, files: Mapping[str, bytes], last: str, data: bytes) -> bool:
        """All are uploaded at once; they get their names in order, and ``last`` only if nobody has it."""
        with self._uploaded({**files, last: data}) as temporaries:
            for name, temporary in temporaries:
                if name != last:
                    self._rename(temporary, name)
                else:
                    return self._claim(temporary, name)
        raise AssertionError("unreachable: the last file is among the uploaded")

    def create(self, name: str, data: bytes) -> bool:
        return self.commit({}, name, data)

    def create_from(self, name: str, source: BinaryIO) -> bool:
        with self._temporary(name) as temporary:
            fault_hook.step("create", temporary)
            with self._explained(name):
                self._client.upload(temporary, source, private=self._private)
            self.traffic.count_upload(source.seek(0, io.SEEK_END))
            return self._claim(temporary, name)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Written to a local file first: an upload that breaks off can be repeated then."""
        with upload_buffer() as buffer:
            with writing_to(buffer, f"{self.root}/{name}"):
                yield buffer
            with self._temporary(name) as temporary:
                fault_hook.step("create", temporary)
                with self._explained(name):
                    self._client.upload(temporary, buffer, private=self._private)
                self.traffic.count_upload(buffer.seek(0, io.SEEK_END))
                self._rename(temporary, name)

    @contextlib.contextmanager
    def _uploaded(self, files: Mapping[str, bytes]) -> Iterator[Iterator[tuple[str, str]]]:
        """Upload files; yields each name with its temporary path when its upload is done. At the end none is left."""
        with contextlib.ExitStack() as stack:
            temporaries = {name: stack.enter_context(self._temporary(name)) for name in files}

            def upload(name: str) -> tuple[str, str]:
                with self._explained(name):
                    self._client.upload(temporaries[name], files[name], private=self._private)
                self.traffic.count_upload(len(files[name]))
                return name, temporaries[name]

            for temporary in temporaries.values():
                fault_hook.step("create", temporary)
            if len(files) < 2:
                yield map(upload, temporaries)
            else:
                pool = stack.enter_context(ThreadPoolExecutor(UPLOADS))
                yield pool.map(upload, temporaries)

    @contextlib.contextmanager
    def _temporary(self, name: str) -> Iterator[str]:
        """A path to upload to; what is left there when the block fails is deleted, as far as HDFS answers."""
        if not self._made:
            fault_hook.step("mkdir", self._path)
            with self._explained(""):
                self._client.mkdirs(self._path, private=True)
            self._made = True
        temporary = self._at(temporary_name(name))
        try:
            yield temporary
        except BaseException:
            self._discard(temporary)
            raise

    def _discard(self, temporary: str) -> None:
        fault_hook.step("clean", temporary)
        with contextlib.suppress(StorageError):  # the next driver sweeps what stays
            self._client.delete(temporary, wait=False)

    def _rename(self, temporary: str, name: str) -> None:
        fault_hook.step("rename", self._at(name))
        with self._explained(name):
            self._client.rename(temporary, self._at(name), overwrite=True)

    def _claim(self, temporary: str, name: str) -> bool:
        """Give the file its name if that is free."""
        with self._explained(name):
            status = self._client.status(temporary)
            fault_hook.step("rename", self._at(name))
            try:
                self._client.rename(temporary, self._at(name), overwrite=False, id=status.id if status else 0)
            except AlreadyThereError:
                self._discard(temporary)
                return False
        return True

    def sweep(self, under: str = "", *, of: Callable[[str], bool] | None = None) -> None:
        folders = [self._at(under)]
        while folders:
            folder = folders.pop()
            with self._explained(under):
                for entry in self._client.list(folder):
                    path = posixpath.join(folder, entry.name)
                    if entry.directory:
                        folders += [path] if of is None else []
                    elif is_temporary(entry.name, of):
                        fault_hook.step("sweep", path)
                        self._client.sweep(path)

    def names(self, under: str = "") -> list[str]:
        with self._explained(under):
            entries = self._client.list(self._at(under))
        return sorted(entry.name for entry in entries if not entry.name.endswith(TEMPORARY))

    def exists(self, name: str) -> bool:
        with self._explained(name):
            return self._client.status(self._at(name)) is not None

    def size(self, name: str) -> int:
        with self._explained(name):
            status = self._client.status(self._at(name))
            if status is None:
                raise StorageError("no such file or directory")
            return status.size

    def delete(self, name: str) -> None:
        fault_hook.step("delete", self._at(name))
        with self._explained(name):
            self._client.delete(self._at(name))
        self._made = self._made and bool(name)

    def _at(self, name: str) -> str:
        return posixpath.join(self._path, name) if name else self._path

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Name the file by its address in every error."""
        try:
            yield
        except StorageError as error:
            error.where = {**error.where, "file": f"{self.root}/{name}" if name else self.root}
            raise


class _RemoteFile(RangedFile):
    """A file of HDFS; every read is a request."""

    def __init__(self, files: HdfsStorage, name: str, size: int) -> None:
        super().__init__(size)
        self._files, self._name = files, name

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        length = self.left(len(buffer))
        if length:
            buffer[:length] = self._files.read_range(self._name, self.offset, length)
            self.offset += length
        return length
