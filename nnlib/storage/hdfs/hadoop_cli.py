"""HDFS through ``hadoop fs``, where there is nothing faster: every call starts a JVM, which takes a second."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from nnlib.core.errors import StorageError, UsageError
from nnlib.core.waiting import waiting_for
from nnlib.storage.hdfs.client import AlreadyThereError, FileStatus, NotThereError
from nnlib.storage.hdfs.hadoop_config import HdfsAddress
from nnlib.storage.hdfs.rename_replace import ReplaceByRenames
from nnlib.storage.hdfs.webhdfs_errors import DENIED

_UNUSABLE = re.compile(r"[\\*?\[\]{}]")


def find_hadoop() -> str | None:
    """Return the ``hadoop`` command of HADOOP_HOME, or on PATH; None if there is none."""
    home = os.environ.get("HADOOP_HOME")
    own = Path(home, "bin", "hadoop") if home else None
    return str(own) if own is not None and own.is_file() else shutil.which("hadoop")


def client_environment(hdfs: HdfsAddress) -> dict[str, str]:
    """Return the variables with which Hadoop's own client asks as we do."""
    return {**os.environ, **({} if hdfs.kerberos else {"HADOOP_USER_NAME": hdfs.user})}


class HadoopCommand(ReplaceByRenames):
    """The command ``hadoop fs``, which tries again and waits by its own configuration."""

    ranged = False

    def __init__(self, hdfs: HdfsAddress) -> None:
        program = find_hadoop()
        if program is None:
            raise UsageError("there is no hadoop command", hint="set HADOOP_HOME, or NNJOBS_HDFS_CLIENT=webhdfs")
        self._program = program
        self._root = f"{hdfs.scheme}://{hdfs.authority}"
        self._environment = client_environment(hdfs)

    def list(self, path: str) -> list[FileStatus]:
        try:
            lines = self._run("-ls", path).decode().splitlines()
        except NotThereError:
            return []
        entries = [_parsed(line) for line in lines if not line.startswith("Found ")]
        return [entry for entry in entries if not (entry.name == posixpath.basename(path) and not entry.directory)]

    def _status(self, path: str) -> FileStatus | None:
        try:
            return _parsed(self._run("-ls", "-d", path).decode().splitlines()[0])
        except NotThereError:
            return None

    def _read(self, path: str, offset: int, length: int | None) -> bytes:
        data = self._run("-cat", path)
        return data[offset:] if length is None else data[offset : offset + length]

    def upload(self, path: str, data: bytes | BinaryIO, *, private: bool) -> None:
        self.mkdirs(posixpath.dirname(path), private=False)
        self._run("-put", "-f", "-", path, send=data)
        if private:
            self._run("-chmod", "600", path)

    def _rename(self, source: str, target: str) -> None:
        self._run("-mv", source, target)

    def mkdirs(self, path: str, *, private: bool) -> None:
        new = private and self._status(path) is None
        self._run("-mkdir", "-p", path)
        if new:
            self._run("-chmod", "700", path)

    def delete(self, path: str, *, wait: bool = True) -> None:
        self._run("-rm", "-r", "-f", "-skipTrash", path)

    def _run(self, *arguments: str, send: bytes | BinaryIO = b"") -> bytes:
        """What the command prints; arguments that begin with ``/`` are paths in HDFS."""
        paths = [argument for argument in arguments if argument.startswith("/")]
        for path in paths:
            if _UNUSABLE.search(path):
                raise StorageError(
                    "hadoop fs takes this name for a pattern", hint="use WebHDFS, or another name", file=path
                )
        words = [f"{self._root}{word}" if word.startswith("/") else word for word in arguments]
        source: dict[str, object] = {"input": send}
        if not isinstance(send, bytes):
            send.seek(0)
            source = {"stdin": send}
        with waiting_for(f"hadoop fs {arguments[0]} has not ended ({paths[0]})", reports_end=True):
            done = _finished([self._program, "fs", *words], self._environment, source)
        if done.returncode != 0:
            raise _explained(done.stderr.decode("utf-8", "replace"), paths[0])
        return done.stdout


def _finished(
    command: Sequence[str], environment: dict[str, str], source: dict[str, object]
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, env=environment, capture_output=True, check=False, **source)  # type: ignore[call-overload, no-any-return]
    except OSError as error:
        raise StorageError(f"cannot run {command[0]}: {error}") from error


def _parsed(line: str) -> FileStatus:
    """A line of ``-ls``: permissions, replication, owner, group, bytes, day, time, path."""
    mode, _, _, _, size, _, _, path = line.split(None, 7)
    return FileStatus(posixpath.basename(path), mode.startswith("d"), int(size))


def _explained(text: str, path: str) -> StorageError:
    """The error that the command's complaint stands for."""
    lines = [line for line in text.splitlines() if not re.search(r" (WARN|INFO|DEBUG) ", line)]
    message = lines[-1] if lines else text.strip() or "hadoop fs failed and does not say why"
    if "No such file or directory" in message:
        return NotThereError("no such file or directory", file=path)
    if "File exists" in message:
        return AlreadyThereError("is there already", file=path)
    hint = None
    if "Permission denied" in message:
        hint = DENIED
    elif "quota" in message:
        hint = "free some space or raise the quota, then run the same command with --resume"
    elif "Connection refused" in message or "safe mode" in message:
        hint = "see that HDFS's daemons run (hdfs dfsadmin -report), then run the same command with --resume"
    return StorageError(f"hadoop fs: {message}", hint=hint, file=path)
