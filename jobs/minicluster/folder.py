"""The folder that a cluster lives in: which may be one, who works on it, and removing it."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from jobs.minicluster.layout import DESCRIPTION
from nnlib.core.errors import JobError, StorageError, UsageError

LOCK = ".nnjobs-lock"
OWN = ("conf", "data", "logs", "nm", "tmp", LOCK, DESCRIPTION)
"""What a cluster's folder holds, the description last. Nothing else is ever deleted."""

LEGAL = re.compile(r"[\w./@+=~-]+", re.ASCII)
"""Hadoop splits paths at commas and colons, and its launch scripts at spaces."""


def check_name(path: Path, setting: str) -> None:
    """Refuses a path that Hadoop cannot work with; ``setting`` is what names another.

    Raises:
        UsageError: the path holds such a character.
    """
    if not LEGAL.fullmatch(str(path)):
        raise UsageError(
            f"Hadoop cannot work in {path}: the name holds a space or another character of its own meaning",
            hint=f"choose a folder of letters, digits and . _ - with {setting}",
        )


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds something else.

    Raises:
        UsageError: it does, or has a name that Hadoop cannot work with.
    """
    check_name(folder, "--dir or NNJOBS_CLUSTER")
    if folder.is_dir() and not (folder / DESCRIPTION).exists():
        strange = sorted({path.name for path in folder.iterdir()} - {LOCK})
        if strange:
            raise UsageError(
                f"{folder} is no cluster's folder: it holds {strange[0]}", hint="choose a new one with --dir"
            )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else starts or stops the cluster meanwhile. The lock of a process that was killed is free.

    Raises:
        JobError: somebody does.
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
    """Removes what belongs to the cluster, and the folder if nothing else is in it.

    Raises:
        StorageError: something cannot be removed; it can be tried again.
    """
    try:
        for name in OWN:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise StorageError(f"cannot remove {error.filename}: {error.strerror}") from error
