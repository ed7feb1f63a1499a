"""The folder of a cluster: which folder can be one, the lock on it, its removal."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from jobs.minicluster.settings import DESCRIPTION
from nnlib.core.errors import JobError, StorageError, UsageError

LOCK = ".nnjobs-lock"
CLUSTER_FILES = ("conf", "data", "logs", "nm", "tmp", LOCK, DESCRIPTION)
"""The contents of a cluster's folder, the description last. Nothing else is ever deleted."""

LEGAL = re.compile(r"[\w./@+=~-]+", re.ASCII)
"""Hadoop splits paths at commas and colons, and its launch scripts at spaces."""


def check_path(path: Path, setting: str) -> None:
    """Refuse a path that Hadoop cannot work with. ``setting`` is the option that names another path.

    Raises:
        UsageError: the path holds such a character.
    """
    if not LEGAL.fullmatch(str(path)):
        raise UsageError(
            f"Hadoop cannot work in {path}: the name holds a space or another special character",
            hint=f"choose a folder of letters, digits and . _ - with {setting}",
        )


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a cluster.

    Raises:
        UsageError: the folder does, or Hadoop cannot work with its name.
    """
    check_path(folder, "--dir or NNJOBS_CLUSTER")
    if folder.is_dir() and not (folder / DESCRIPTION).exists():
        strange = sorted({path.name for path in folder.iterdir()} - {LOCK})
        if strange:
            raise UsageError(
                f"{folder} is no cluster's folder: it holds {strange[0]}", hint="choose a new one with --dir"
            )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the cluster: no other process starts or stops it meanwhile. A killed process frees its lock.

    Raises:
        JobError: another process holds it.
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / LOCK).open("a")
    except OSError as error:
        raise StorageError(f"cannot write {error.filename}: {error.strerror}", hint="choose another --dir") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JobError(
                f"another nnjobs is starting or stopping the cluster in {folder}", hint="wait until it is done"
            ) from error
        yield


def delete_folder(folder: Path) -> None:
    """Remove the cluster's files, and the folder if nothing else is in it.

    Raises:
        StorageError: something cannot be removed; a second call goes on.
    """
    try:
        for name in CLUSTER_FILES:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise StorageError(f"cannot remove {error.filename}: {error.strerror}") from error
