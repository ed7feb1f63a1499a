"""Shards of a dataset that lies elsewhere, kept on this node: what one round has read the next need not read again.

Entries are named by their SHA-256, so a changed dataset never meets an old entry, and datasets share equal shards. All
processes of a user on a node share a folder: a shard is fetched by one of them while the others wait. An entry is
trusted no more than the original: whoever opens it checks its hash (`nnlib.data.shard_reader`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from nnlib.config.schema import Runtime
from nnlib.core.liveness import beat
from nnlib.data.dataset import Shard
from nnlib.storage import TEMPORARY, Storage

DEFAULT_MB = 4096
PART_BYTES = 8 << 20
ABANDONED_SECONDS = 3600.0
"""A fetch that has not grown for so long belongs to a killed process."""

_log = logging.getLogger("nnjobs.cache")


class ShardCache:
    """A folder of at most ``megabytes`` (0: nothing is kept); the entries used longest ago make room.

    ``folder`` None: in a YARN container the user's own part of the node's local directories, which outlives the job;
    elsewhere below the system's folder for temporary files.
    """

    def __init__(self, folder: str | None = None, megabytes: int = DEFAULT_MB) -> None:
        self._chosen = folder
        self._bytes = megabytes << 20

    @cached_property
    def _folder(self) -> Path:
        return default_folder() if self._chosen is None else Path(self._chosen).expanduser()

    def open(self, files: Storage, shard: Shard) -> BinaryIO:
        """The shard's bytes, from here or, the first time, from its storage. Not verified."""
        if shard.bytes > self._bytes:
            return files.open(shard.name)
        try:
            return self._entry(shard) or self._fetched(files, shard)
        except OSError as error:  # a full or read-only disk; a `StorageError` of the dataset is none
            _log.warning("cannot keep shards in %s: %s", self._folder, error)
            return files.open(shard.name)

    def drop(self, shard: Shard) -> bool:
        """Forget a damaged entry; whether there was one."""
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
            # The time of its last use, also on disks that do not note it; its modification stays what readers know.
            os.utime(self._path(shard), ns=(time.time_ns(), status.st_mtime_ns))
        return stream

    def _fetched(self, files: Storage, shard: Shard) -> BinaryIO:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked(shard):
            found = self._entry(shard)  # another process may have been quicker
            if found is not None:
                return found
            self._make_room(shard.bytes)
            temporary = self._folder / f".{shard.sha256}.{secrets.token_hex(4)}{TEMPORARY}"
            try:
                digest = hashlib.sha256()
                with files.open(shard.name) as source, temporary.open("xb") as target:
                    while part := source.read(PART_BYTES):
                        beat()
                        digest.update(part)
                        target.write(part)
                stream = temporary.open("rb")
                if digest.hexdigest() == shard.sha256:  # else it is read once, found wrong, and gone
                    temporary.replace(self._path(shard))
                return stream
            finally:
                temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, shard: Shard) -> Iterator[None]:
        """One process at a time fetches a shard. The kernel frees the lock of one that dies."""
        handle = os.open(self._folder / f".lock-{shard.sha256[:2]}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    beat()  # the one that fetches gets on, or dies and frees it
                    time.sleep(0.05)
            yield
        finally:
            os.close(handle)

    def _make_room(self, wanted: int) -> None:
        """Delete what was used longest ago until ``wanted`` more bytes fit. Who has an entry open keeps it."""
        entries = []
        for path in self._folder.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.name.endswith(TEMPORARY):
                if time.time() - status.st_mtime > ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
            elif not path.name.startswith("."):
                entries.append((status.st_atime_ns, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total + wanted <= self._bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def shard_cache(runtime: Runtime) -> ShardCache:
    """The cache that a run is configured to use."""
    return ShardCache(runtime.cache_dir, runtime.cache_mb)


def default_folder() -> Path:
    """Where this user's tasks on this node find each other's entries."""
    for folder in os.environ.get("LOCAL_DIRS", "").split(","):  # YARN: .../usercache/USER/appcache/APPLICATION
        user = re.fullmatch(r"(.*/usercache/[^/]+)/appcache/[^/]+/?", folder.strip())
        if user is not None and os.access(user[1], os.W_OK):
            return Path(user[1], "nnjobs-shards")
    shared = Path(tempfile.gettempdir(), f"nnjobs-shards-{os.getuid()}")
    if shared.exists() and shared.stat().st_uid != os.getuid():  # somebody took the name: they could read our data
        return Path(tempfile.mkdtemp(prefix="nnjobs-shards-"))
    return shared
