"""A cache on this node for shards of datasets on other machines, so that later rounds need not fetch them again.

Entries are named by their SHA-256: a changed dataset never gets an old entry, and datasets share equal shards. All
processes of a user on a node use one folder: one of them fetches a shard while the others wait. The reader of an entry
checks its hash, as it checks the original's (`nnlib.data.shard_reader`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import stat
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from nnlib.config.schema import Runtime
from nnlib.core.liveness import heartbeat
from nnlib.data.dataset import Shard
from nnlib.data.node_folder import locked, node_folder
from nnlib.storage import TEMPORARY, Storage

DEFAULT_MB = 4096
PART_BYTES = 8 << 20
"""Bytes copied at a time."""

ABANDONED_SECONDS = 3600.0
"""A file that has not grown for this time was being fetched by a process that was killed."""

_log = logging.getLogger("nnjobs.cache")


class ShardCache:
    """A folder of shards of at most ``megabytes`` (0: nothing is cached); the least recently used are deleted first.

    ``folder`` None: `default_folder`.
    """

    def __init__(self, folder: str | None = None, megabytes: int = DEFAULT_MB) -> None:
        self._configured = folder
        self._bytes = megabytes << 20

    @cached_property
    def _folder(self) -> Path:
        return default_folder() if self._configured is None else Path(self._configured).expanduser()

    def open(self, files: Storage, shard: Shard) -> BinaryIO:
        """Return a shard's bytes, not verified: from the cache or, the first time, from its storage ``files``."""
        if shard.bytes > self._bytes:
            return files.open(shard.name)
        try:
            return self._entry(shard) or self._fetch(files, shard)
        except OSError as error:  # a full or read-only disk; a `StorageError` of the dataset is none
            _log.warning("cannot keep shards in %s: %s", self._folder, error)
            return files.open(shard.name)

    def drop(self, shard: Shard) -> bool:
        """Delete a damaged entry; return whether there was one."""
        try:
            self._path(shard).unlink()
            return True
        except OSError:
            return False

    def _path(self, shard: Shard) -> Path:
        return self._folder / shard.sha256

    def _entry(self, shard: Shard) -> BinaryIO | None:
        try:
            stream = self._path(shard).open("rb")
        except FileNotFoundError:
            return None
        status = os.fstat(stream.fileno())
        with contextlib.suppress(OSError):
            # Sets the time of its last use, which not every disk records; readers compare the modification time.
            os.utime(self._path(shard), ns=(time.time_ns(), status.st_mtime_ns))
        return stream

    def _fetch(self, files: Storage, shard: Shard) -> BinaryIO:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self._folder / f".lock-{shard.sha256[:2]}"):
            entry = self._entry(shard)  # another process may have been quicker
            if entry is not None:
                return entry
            self._make_room(shard.bytes)
            temporary = self._folder / f".{shard.sha256}.{secrets.token_hex(4)}{TEMPORARY}"
            try:
                digest = hashlib.sha256()
                with files.open(shard.name) as source, temporary.open("xb") as target:
                    while part := source.read(PART_BYTES):
                        heartbeat()
                        digest.update(part)
                        target.write(part)
                stream = temporary.open("rb")
                if digest.hexdigest() == shard.sha256:  # else its reader sees that it is damaged
                    temporary.replace(self._path(shard))
                return stream
            finally:
                temporary.unlink(missing_ok=True)

    def _make_room(self, wanted: int) -> None:
        """Delete the least recently used entries until ``wanted`` more bytes fit. Open ones stay readable."""
        entries = []
        for path in self._folder.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.name.endswith(TEMPORARY):
                if time.time() - status.st_mtime > ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
            elif not path.name.startswith(".") and stat.S_ISREG(status.st_mode):
                entries.append((status.st_atime_ns, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total + wanted <= self._bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def shard_cache(runtime: Runtime) -> ShardCache:
    """Return the cache that a run is configured to use."""
    return ShardCache(runtime.cache_dir, runtime.cache_mb)


def default_folder() -> Path:
    """Return the folder that all tasks of this user on this node use: see `nnlib.data.node_folder.node_folder`. Where
    another user made it, and could read our data, it is a new one."""
    folder = node_folder("nnjobs-shards")
    if folder.exists() and folder.stat().st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix="nnjobs-shards-"))
    return folder
