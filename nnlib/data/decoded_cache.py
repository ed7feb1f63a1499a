"""A cache on this node for decoded rows, so that a task does not decode again what another one has decoded.

A file holds one shard (`nnlib.data.decoded_file`). Its name is a hash of what decides its content: the shard's SHA-256,
the types of its columns, the extra columns, the version of the layout. Rows are decoded by `ShardReader`, which checks
the shard's hash. A file is trusted because only this user can have written it (the folder is the user's alone, as is
the file, and neither is a link), its name says what it holds, and its checksums show that it is as it was written.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from nnlib.config.schema import Runtime
from nnlib.core.machine import memory_bytes
from nnlib.data.dataset import Dataset
from nnlib.data.decoded_file import FORMAT, DamagedFileError, DecodedFile, RowForm, write_decoded
from nnlib.data.node_folder import is_private, locked, node_folder, open_private_folder
from nnlib.data.shard_cache import ShardCache
from nnlib.data.shard_reader import ShardReader
from nnlib.storage import TEMPORARY

LEAST_BYTES = 4 << 20
"""Rows of a worker that take less are decoded anew: that takes 20 ms, and a round that small takes little more."""

_FREE_FRACTION = 4
"""Without ``runtime.decoded_mb`` the cache takes at most one part in this many of the disk space that is free."""

_log = logging.getLogger("nnjobs.cache")
_warned: set[Path] = set()
"""Folders about which this process has warned."""


class DecodedCache:
    """A folder of decoded shards; the least recently used are deleted first.

    ``folder`` None: that of this user on this node. ``megabytes``: its size at most; None: a quarter of the disk space
    that is free, and no more than the machine has memory. No method raises because of the cache: where a disk is full
    or read-only, or the folder another user's, rows are decoded as if there were none, and one warning says so.
    """

    def __init__(self, folder: str | None = None, megabytes: int | None = None) -> None:
        self.folder = node_folder("nnjobs-rows") if folder is None else Path(folder).expanduser() / "decoded"
        self._megabytes = megabytes

    def open(
        self, dataset: Dataset, shards: Sequence[int], extra_columns: Sequence[str], cache: ShardCache | None
    ) -> dict[int, DecodedFile]:
        """Open the decoded rows of some shards, by shard; those that are not there are decoded first, each by one
        process of the node.

        Shards that cannot be kept are missing in the result. ``cache``: as for `ShardReader`, whose errors this
        raises.
        """
        files: dict[int, DecodedFile] = {}
        try:
            with contextlib.ExitStack() as stack:
                folder = open_private_folder(self.folder)
                stack.callback(os.close, folder)
                wanted = _Wanted(folder, dataset, tuple(extra_columns), cache)
                for shard in shards:
                    file = wanted.find(shard)
                    if file is not None:
                        files[shard] = file
                missing = [shard for shard in shards if shard not in files]
                if missing:
                    self._make(wanted, missing, files)
        except OSError as error:
            self._warn(error)
        except BaseException:
            for file in files.values():
                file.close()
            raise
        return files

    def drop(self, dataset: Dataset, shard: int, extra_columns: Sequence[str]) -> None:
        """Delete the damaged file of a shard, if it is there."""
        with contextlib.suppress(OSError):
            (self.folder / _key(dataset, shard, extra_columns)).unlink()

    def _make(self, wanted: _Wanted, missing: Sequence[int], files: dict[int, DecodedFile]) -> None:
        """Decode missing shards into files: first those that no other process decodes now, then the others."""
        limit = self._limit(wanted.folder)
        kept = [shard for shard in missing if wanted.end_of(shard) <= limit]
        for waits in (False, True):
            for shard in [shard for shard in kept if shard not in files]:
                with locked(_lock_of(wanted.key(shard)), folder=wanted.folder, waits=waits) as is_locked:
                    if is_locked:
                        files[shard] = wanted.find(shard) or wanted.make(shard, limit)

    def _warn(self, error: OSError) -> None:
        if self.folder not in _warned:
            _warned.add(self.folder)
            _log.warning("cannot keep decoded rows in %s, so they are decoded again: %s", self.folder, error)

    def _limit(self, folder: int) -> int:
        """Return the bytes that the folder may hold."""
        if self._megabytes is not None:
            return self._megabytes << 20
        disk = os.fstatvfs(folder)
        held = sum(size for _, size, _ in _files_in(folder))
        limit = (disk.f_bavail * disk.f_frsize + held) // _FREE_FRACTION
        memory = memory_bytes()
        return limit if memory is None else min(limit, memory)


class _Wanted:
    """The files of a dataset in the open ``folder``, with some extra columns."""

    def __init__(self, folder: int, dataset: Dataset, extra_columns: tuple[str, ...], cache: ShardCache | None) -> None:
        self.folder, self._dataset, self._extra, self._cache = folder, dataset, extra_columns, cache
        self._form = RowForm.of(dataset, extra_columns)
        self._storage = dataset.storage()

    def key(self, shard: int) -> str:
        return _key(self._dataset, shard, self._extra)

    def end_of(self, shard: int) -> int:
        """Return the bytes of a shard's rows and of those of all shards before it: where not all fit, these stay, or
        each round would push out what the next one needs."""
        return sum(map(self._form.bytes_of, self._dataset.shards[: shard + 1]))

    def find(self, shard: int) -> DecodedFile | None:
        """Open the file of a shard, and note that it was used; a damaged one is deleted.

        None, too, where the shard is on this machine and is gone or has another length: its reader will say so.
        """
        key, promised = self.key(shard), self._dataset.shards[shard]
        original = self._storage.local_path(promised.name)
        if original is not None and (not original.exists() or original.stat().st_size != promised.bytes):
            return None
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not block
            handle = os.open(key, flags, dir_fd=self.folder)
        except FileNotFoundError:
            return None
        stream = io.FileIO(handle)
        try:
            if not is_private(os.fstat(handle)):
                raise PermissionError(f"{key} belongs to another user, or another user may write it")
            file = DecodedFile(stream, shard, self._form)
            os.utime(handle)
        except DamagedFileError:
            stream.close()
            os.unlink(key, dir_fd=self.folder)
            return None
        except BaseException:
            stream.close()
            raise
        return file

    def make(self, shard: int, limit: int) -> DecodedFile:
        """Decode a shard into its file. The caller holds the lock of its key."""
        key = self.key(shard)
        size = self._form.bytes_of(self._dataset.shards[shard])
        temporary = f".{key}.{secrets.token_hex(4)}{TEMPORARY}"
        try:
            with ShardReader(self._dataset, shard, self._extra, self._cache) as rows:
                with locked(".lock-room", folder=self.folder):
                    _delete_abandoned(self.folder, _lock_of(key))
                    _make_room(self.folder, limit - size)
                    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    target = io.FileIO(os.open(temporary, flags, 0o600, dir_fd=self.folder), "r+")
                    target.truncate(size)  # others see how much room it takes
                with io.BufferedWriter(target) as stream:
                    write_decoded(stream, rows, self._form)
                    stream.truncate()
            os.rename(temporary, key, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self.folder)
        file = self.find(shard)
        if file is None:
            raise OSError(f"{key} is damaged as soon as it is written")
        return file


def decoded_cache(runtime: Runtime) -> DecodedCache | None:
    """Return the cache that a run is configured to use; None if it is to use none."""
    return None if runtime.decoded_mb == 0 else DecodedCache(runtime.cache_dir, runtime.decoded_mb)


def _key(dataset: Dataset, shard: int, extra_columns: Sequence[str]) -> str:
    """Return the name of the file of a shard's decoded rows."""
    facts = {
        "format": [FORMAT, sys.byteorder],
        "shard": dataset.shards[shard].sha256,
        "x": [dataset.x_dtype, dataset.features],
        "y": [dataset.task, len(dataset.classes)],
        "extra": [[name, dataset.columns.get(name)] for name in extra_columns],
    }
    return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()


def _lock_of(key: str) -> str:
    """Return the name of the lock file that the process which decodes into a file holds."""
    return f".lock-{key[:2]}"


def _files_in(folder: int) -> list[tuple[int, int, str]]:
    """Return the files in a folder, also those being written: when each was used last, its bytes, its name."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".lock-"):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                files.append((status.st_mtime_ns, status.st_size, entry.name))
    return files


def _delete_abandoned(folder: int, held: str) -> None:
    """Delete what killed processes were writing: a living one would hold the lock, and this one has the lock ``held``,
    but has not begun to write."""
    for _, _, name in _files_in(folder):
        if not name.endswith(TEMPORARY):
            continue
        lock = _lock_of(name[1:])
        with contextlib.nullcontext(True) if lock == held else locked(lock, folder=folder, waits=False) as is_free:
            if is_free:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)


def _make_room(folder: int, room: int) -> None:
    """Delete the files that were not used for longest until the others take at most ``room`` bytes. Mapped ones stay
    readable."""
    files = _files_in(folder)
    total = sum(size for _, size, _ in files)
    for _, size, name in sorted(files):
        if total <= room:
            break
        if not name.startswith("."):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            total -= size
