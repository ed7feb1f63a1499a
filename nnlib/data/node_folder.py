"""Folders of this node in which the processes of one user keep files for each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from nnlib.core.liveness import heartbeat

WAIT_SECONDS = 0.02
"""Between two looks whether a lock is free."""


def node_folder(name: str) -> Path:
    """Return the folder called ``name`` that all tasks of this user on this node use; it may not exist yet.

    In a YARN container it is in the user's part of the node's local folders, which outlives the job; elsewhere it is in
    the system's folder for temporary files, and its name ends with the user's number.
    """
    for folder in os.environ.get("LOCAL_DIRS", "").split(","):  # YARN: .../usercache/USER/appcache/APPLICATION
        user = re.fullmatch(r"(.*/usercache/[^/]+)/appcache/[^/]+/?", folder.strip())
        if user is not None and os.access(user[1], os.W_OK):
            return Path(user[1], name)
    return Path(tempfile.gettempdir(), f"{name}-{os.getuid()}")


def open_private_folder(path: Path) -> int:
    """Make a folder that only this user may enter, if it is not there, and return its descriptor.

    Raises `OSError` where it cannot be made, and `PermissionError` where it is a link or another user's: that user
    could read our data, or give us theirs.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(folder)
        if status.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to another user")
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(folder, 0o700)
    except BaseException:
        os.close(folder)
        raise
    return folder


def is_private(status: os.stat_result) -> bool:
    """Return whether a file is a regular one that this user owns and no other may write."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


@contextlib.contextmanager
def locked(file: str | Path, *, folder: int | None = None, waits: bool = True) -> Iterator[bool]:
    """Hold the lock of a ``file`` (a name in the open ``folder``, or a path) during the block.

    The block gets whether the lock is held, which it may not be if this does not wait. The process that holds it makes
    progress, or dies, and then the kernel frees it: a task that waits reports that it lives.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waits:
                    yield False
                    return
                heartbeat()
                time.sleep(WAIT_SECONDS)
        yield True
    finally:
        os.close(handle)
