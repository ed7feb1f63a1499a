"""HDFS through Hadoop's own C library, which runs a JVM inside this process: fast once it runs, a second to start."""

from __future__ import annotations

import os
import posixpath
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from nnlib.core.errors import StorageError, UsageError
from nnlib.core.waiting import waiting_for
from nnlib.storage.hdfs.client import AlreadyThereError, FileStatus, NotThereError
from nnlib.storage.hdfs.hadoop_cli import client_environment, find_hadoop
from nnlib.storage.hdfs.hadoop_config import HdfsAddress
from nnlib.storage.hdfs.rename_replace import ReplaceByRenames

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

PART_BYTES = 4 << 20


def find_libhdfs() -> Path | None:
    """Return the folder of ``libhdfs.so``, where pyarrow looks for it; None if there is none."""
    home = os.environ.get("HADOOP_HOME", "")
    for folder in (os.environ.get("ARROW_LIBHDFS_DIR"), home and f"{home}/lib/native"):
        if folder and any(Path(folder, name).is_file() for name in ("libhdfs.so", "libhdfs.dylib")):
            return Path(folder)
    return None


class LibHdfs(ReplaceByRenames):
    """pyarrow's file system; ``filesystem`` stands in for it in tests. It sets no permissions: private
    files are so by their directory, which ``hadoop fs`` makes where it is installed, else by the user's umask."""

    ranged = True

    def __init__(self, hdfs: HdfsAddress, filesystem: Any = None) -> None:
        self._root = f"{hdfs.scheme}://{hdfs.authority}"
        self._environment = client_environment(hdfs)
        self._files = _connected(hdfs) if filesystem is None else filesystem

    def list(self, path: str) -> list[FileStatus]:
        from pyarrow.fs import FileSelector

        status = self._status(path)
        if status is None or not status.directory:
            return []
        selected = FileSelector(path, allow_not_found=True)
        return [_status(info) for info in self._done(path, self._files.get_file_info, selected)]

    def _status(self, path: str) -> FileStatus | None:
        from pyarrow.fs import FileType

        info = self._done(path, self._files.get_file_info, path)
        return None if info.type == FileType.NotFound else _status(info)

    def _read(self, path: str, offset: int, length: int | None) -> bytes:
        with self._done(path, self._files.open_input_file, path) as stream:
            stream.seek(offset)
            return bytes(self._done(path, stream.read, length))

    def upload(self, path: str, data: bytes | BinaryIO, *, private: bool) -> None:
        self.mkdirs(posixpath.dirname(path), private=False)
        with self._done(path, self._files.open_output_stream, path) as stream:
            if isinstance(data, bytes):
                self._done(path, stream.write, data)
                return
            data.seek(0)
            while part := data.read(PART_BYTES):
                self._done(path, stream.write, part)

    def _rename(self, source: str, target: str) -> None:
        if self._status(source) is None:
            raise NotThereError("no such file or directory", file=source)
        try:
            self._done(target, self._files.move, source, target)
        except StorageError:
            if self._status(target) is not None:  # libhdfs does not say why it failed
                raise AlreadyThereError("is there already", file=target) from None
            raise

    def mkdirs(self, path: str, *, private: bool) -> None:
        new = private and self._status(path) is None
        self._done(path, self._files.create_dir, path)
        program = find_hadoop()
        if new and program is not None:
            command = [program, "fs", "-chmod", "700", f"{self._root}{path}"]
            done = subprocess.run(
                command, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
            if done.returncode:
                raise StorageError("cannot be made its owner's alone (hadoop fs -chmod 700 failed)", file=path)

    def delete(self, path: str, *, wait: bool = True) -> None:
        status = self._status(path)
        if status is not None:
            self._done(path, self._files.delete_dir if status.directory else self._files.delete_file, path)

    @staticmethod
    def _done(path: str, call: Any, *arguments: Any) -> Any:
        try:
            with waiting_for(f"HDFS has not answered libhdfs ({path})", reports_end=True):
                return call(*arguments)
        except FileNotFoundError as error:
            raise NotThereError("no such file or directory", file=path) from error
        except OSError as error:
            raise StorageError(f"HDFS refused: {str(error).partition(chr(10))[0]}", file=path) from error


def _status(info: FileInfo) -> FileStatus:
    from pyarrow.fs import FileType

    return FileStatus(info.base_name, info.type == FileType.Directory, info.size or 0)


def _output_of(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _connected(hdfs: HdfsAddress) -> Any:
    from pyarrow.fs import HadoopFileSystem

    program = find_hadoop()
    if "CLASSPATH" not in os.environ and program is not None:  # the JVM inside needs Hadoop's jars, one by one
        done = subprocess.run(
            [program, "classpath", "--glob"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        os.environ["CLASSPATH"] = done.stdout.decode().strip()
    host, _, port = hdfs.authority.rpartition(":")
    try:
        return HadoopFileSystem(host or port, int(port) if host else 0, user=None if hdfs.kerberos else hdfs.user)
    except OSError as error:
        raise UsageError(
            f"libhdfs cannot be used: {str(error).partition(chr(10))[0]}",
            hint="set HADOOP_HOME and JAVA_HOME, or NNJOBS_HDFS_CLIENT=webhdfs",
        ) from error
