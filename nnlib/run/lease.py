"""The lock of a run directory: one driver at a time, on any storage that can create a file conditionally.

A lock is a lease: ``lock/000003.json`` names its holder (host, process, since when) and its end. The highest number
counts; taking over a dead holder's lease means creating the next number, which only one of several drivers can. On the
same host a holder is dead when its process is; elsewhere when its lease has expired, which a live holder renews in
time. Clocks only decide when a dead driver's run may go on: if a stale driver wakes up, its commit of a round is
refused (`nnlib.run.round_store`), whatever the clocks show.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from types import TracebackType
from typing import Any

from nnlib.core.errors import MismatchError, StorageError
from nnlib.core.machine import process_started
from nnlib.storage import Storage

FOLDER = "lock"
LEASE_SECONDS = 120.0
RENEW_SECONDS = 20.0

_HELD: set[float] = set()
"""Since when this process holds its leases. A lease that could not be released, for the disk was full, is not in here:
the process lives, but its driver has ended."""


class RunLock:
    """A lease held while the block runs. Entering raises `StorageError`, which names the holder, if another live driver
    holds it."""

    def __init__(self, storage: Storage, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._storage = storage
        self._lease = lease_seconds
        self._since = time.time()
        self._name = ""
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None

    def __enter__(self) -> RunLock:
        for _ in range(100):
            numbers = _leases(self._storage)
            newest = numbers[-1] if numbers else None
            if newest is not None:
                holder = _read(self._storage, newest)
                if holder is not None and _is_alive(holder):
                    raise StorageError(
                        f"another driver is training this run: process {holder['process']} on {holder['host']}, since "
                        f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(holder['since']))}",
                        hint="wait for it or stop it; a dead driver's lock is taken over by itself "
                        f"(on another host after {self._lease:.0f} s)",
                        run=self._storage.root,
                    )
            number = 0 if newest is None else int(newest.removesuffix(".json")) + 1
            self._name = f"{FOLDER}/{number:06d}.json"
            _HELD.add(self._since)  # before anyone can read the file
            if self._storage.create(self._name, self._record()):
                for name in numbers[:-1]:  # the newest stays until a newer one is surely seen by everybody
                    self._storage.delete(f"{FOLDER}/{name}")
                self._renewer = threading.Thread(target=self._renew, daemon=True)
                self._renewer.start()
                return self
            _HELD.discard(self._since)
        raise StorageError("other drivers take the lock again and again", run=self._storage.root)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._renewer is not None:
            self._renewer.join()
        _HELD.discard(self._since)
        self._update(released=True)

    def _record(self, *, released: bool = False) -> bytes:
        facts = {
            "host": platform.node(),
            "process": os.getpid(),
            "started": process_started(os.getpid()),
            "since": self._since,
            "until": time.time() + self._lease,
            "released": released,
        }
        return json.dumps(facts, sort_keys=True).encode() + b"\n"

    def _renew(self) -> None:
        while not self._ended.wait(min(RENEW_SECONDS, self._lease / 4)):
            self._update()

    def _update(self, *, released: bool = False) -> None:
        """Write the lease anew, if its file exists: no folder must be left where a run was moved away."""
        with contextlib.suppress(StorageError):  # tried again at the next renewal; the lease is long
            if self._storage.exists(self._name):
                self._storage.write(self._name, self._record(released=released))


def current_lease(storage: Storage) -> str:
    """The name of the newest lease, for `is_held`; called by its holder."""
    return _leases(storage)[-1]


def is_held(storage: Storage, lease: str) -> bool:
    """Whether a lease is still the newest one and its driver lives. Tasks ask before they write for their driver."""
    leases = _leases(storage)
    holder = _read(storage, lease) if leases and leases[-1] == lease else None
    return holder is not None and _is_alive(holder)


def _leases(storage: Storage) -> list[str]:
    return sorted(name for name in storage.names(FOLDER) if name.endswith(".json"))


def _read(storage: Storage, name: str) -> dict[str, Any] | None:
    """A holder's record; None if its file is gone (released and cleaned meanwhile)."""
    try:
        data = storage.read(f"{FOLDER}/{name}")
    except StorageError:
        return None
    try:
        facts = json.loads(data)
        {key: facts[key] for key in ("host", "process", "started", "since", "until", "released")}
    except (ValueError, KeyError, TypeError) as error:
        raise MismatchError(
            "not a lock file",
            hint="delete it, if surely no driver runs",
            file=f"{storage.root}/{FOLDER}/{name}",
        ) from error
    return dict(facts)


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether the holder still works: by its process here, by its lease elsewhere."""
    if holder["released"]:
        return False
    if holder["host"] != platform.node():
        return bool(time.time() < holder["until"])
    if int(holder["process"]) == os.getpid() and holder["started"] == process_started(os.getpid()):
        return holder["since"] in _HELD
    try:
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return holder["started"] is None or holder["started"] == process_started(int(holder["process"]))
