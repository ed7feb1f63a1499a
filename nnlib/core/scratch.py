"""Temporary folders: what a killed process leaves behind, the next process deletes.

A folder's name identifies its process: ``nnjobs-NAMESPACE-PROCESS-START-...``, where NAMESPACE stands for the host and
its process numbers (containers count for themselves) and START for when the process started, since numbers are reused.
Where the system does not report these, no folder of another process is touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nnlib.core.errors import StorageError
from nnlib.core.machine import process_started

_NAME = re.compile(r"nnjobs-([0-9a-f]{8})-(\d{1,10})-([0-9a-f]{8})-")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for files of this process, deleted at the end. Raises `StorageError` if none can be made."""
    try:
        _sweep(Path(tempfile.gettempdir()))
        made = tempfile.TemporaryDirectory(prefix=folder_prefix(), ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(
            f"cannot make a temporary folder: {error}", hint="set TMPDIR to a folder with space"
        ) from error
    with made as folder:
        yield Path(folder)


def folder_prefix() -> str:
    """The beginning of the names of this process's folders, wherever they lie."""
    namespace, start = _namespace(), _start(os.getpid())
    return "nnjobs-" if namespace is None or start is None else f"nnjobs-{namespace}-{os.getpid()}-{start}-"


def is_abandoned(name: str) -> bool:
    """Whether a folder is surely that of a process that ran here and is dead."""
    parts = _NAME.match(name)
    return parts is not None and parts[1] == _namespace() and _start(int(parts[2])) != parts[3]


def _sweep(parent: Path) -> None:
    """Delete the folders of this user's dead processes."""
    with os.scandir(parent) as entries:
        for entry in entries:
            if not is_abandoned(entry.name):
                continue
            with contextlib.suppress(OSError):  # another process is quicker
                if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                    shutil.rmtree(entry.path, ignore_errors=True)


def _namespace() -> str | None:
    """What makes process numbers unique: this host and this container's process namespace."""
    try:
        numbers = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None
    return _short(f"{platform.node()}/{numbers}")


def _start(process: int) -> str | None:
    started = process_started(process)
    return None if started is None else _short(started)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_file(path: Path, data: bytes) -> None:
    """Write a file into a scratch folder. Raises `StorageError`."""
    try:
        path.write_bytes(data)
    except OSError as error:
        hint = "set TMPDIR to a folder with space"
        raise StorageError(f"cannot write: {error.strerror or error}", hint=hint, file=str(path)) from error
