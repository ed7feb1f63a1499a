"""Leases: one process at a time works in a folder, on any storage that can create a file conditionally.

A lease is a file with a number, ``lock/000003.json``, that names its holder (host, process, since when) and its end.
The highest number counts; taking over a dead holder's lease means creating the next number, which only one of several
processes can. On the same host a holder is dead when its process is; elsewhere when its lease has expired, which a live
holder renews in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from nnlib.core.errors import BusyError, MismatchError, StorageError
from nnlib.core.machine import process_started
from nnlib.storage import Storage

LEASE_SECONDS = 120.0
RENEW_SECONDS = 20.0

_HELD: set[float] = set()
"""Since when this process holds its leases. A lease that could not be released, for the disk was full, is not in here:
the process lives, but what it did has ended."""


@dataclass(frozen=True)
class LeaseKind:
    """What a lease is for.

    ``prefix`` begins the names of its files, ``busy`` says in an error what another holder does, ``where`` is the key
    of the folder there, and ``dead`` says what holders that died left. ``stays``: the file of an ended lease stays, as
    a mark of who was there last.
    """

    prefix: str
    busy: str
    where: str
    dead: str
    stays: bool


class Lease:
    """A lease held while the block runs. Entering raises `BusyError`, which names the holder, if another live
    process holds it. ``facts`` are written into its file, for `lease_facts`."""

    def __init__(
        self,
        storage: Storage,
        kind: LeaseKind,
        *,
        facts: Mapping[str, Any] | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._storage = storage
        self._kind = kind
        self._facts = dict(facts or {})
        self._lease = lease_seconds
        self._since = time.time()
        self._name = ""
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None

    def __enter__(self) -> Self:
        for _ in range(100):
            numbers = lease_numbers(self._storage, self._kind.prefix)
            newest = numbers[-1] if numbers else None
            if newest is not None:
                holder = _read(self._storage, self._kind.prefix + newest)
                if holder is not None and _is_alive(holder):
                    raise BusyError(
                        f"{self._kind.busy}: process {holder['process']} on {holder['host']}, since "
                        f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(holder['since']))}",
                        hint=f"wait for it or stop it; {self._kind.dead} is taken over by itself "
                        f"(on another host after {self._lease:.0f} s)",
                        **{self._kind.where: self._storage.root},
                    )
            number = 0 if newest is None else int(newest.removesuffix(".json")) + 1
            self._name = f"{self._kind.prefix}{number:06d}.json"
            _HELD.add(self._since)  # before anyone can read the file
            if self._create(numbers):
                for name in numbers[:-1]:  # the newest stays until a newer one is surely seen by everybody
                    self._storage.delete(self._kind.prefix + name)
                self._renewer = threading.Thread(target=self._renew, daemon=True)
                self._renewer.start()
                return self
            _HELD.discard(self._since)
        raise StorageError("other processes take the lock again and again", **{self._kind.where: self._storage.root})

    def _create(self, known: Sequence[str]) -> bool:
        """Create the lease's file; False where another holder was quicker, who may have swept our half-written one."""
        try:
            return self._storage.create(self._name, self._record())
        except StorageError:
            if lease_numbers(self._storage, self._kind.prefix) == known:
                _HELD.discard(self._since)
                raise
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._renewer is not None:
            self._renewer.join()
        _HELD.discard(self._since)
        if self._kind.stays:
            self._update(released=True)
            return
        with contextlib.suppress(StorageError):  # a dead holder's files: the next command takes them over
            if self._is_own():
                for name in lease_numbers(self._storage, self._kind.prefix):
                    if self._kind.prefix + name <= self._name:
                        self._storage.delete(self._kind.prefix + name)

    def _record(self, *, released: bool = False) -> bytes:
        facts = {
            "host": platform.node(),
            "process": os.getpid(),
            "started": process_started(os.getpid()),
            "since": self._since,
            "until": time.time() + self._lease,
            "released": released,
            **self._facts,
        }
        return json.dumps(facts, sort_keys=True).encode() + b"\n"

    def _renew(self) -> None:
        while not self._ended.wait(min(RENEW_SECONDS, self._lease / 4)):
            self._update()

    def _update(self, *, released: bool = False) -> None:
        """Write the lease anew, if its file is there: no folder must be left where the folder was moved away."""
        with contextlib.suppress(StorageError):  # tried again at the next renewal; the lease is long
            if self._is_own():
                self._storage.write(self._name, self._record(released=released))

    def _is_own(self) -> bool:
        """Return whether the lease's file is there and still names this holder."""
        try:
            found = _read(self._storage, self._name) if self._storage.exists(self._name) else None
        except MismatchError:
            return False
        own = (platform.node(), os.getpid(), self._since)
        return found is not None and (found["host"], found["process"], found["since"]) == own


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, or held it last: the lease's file, host and process, since when (seconds since 1970).
    ``until`` is when the lease expires unless it is renewed; ``is_released``: the holder ended in order."""

    name: str
    host: str
    process: int
    since: float
    until: float
    is_alive: bool
    is_released: bool


def newest_holder(storage: Storage, prefix: str) -> Holder | None:
    """Return the holder of the newest lease with a prefix; None if there has never been one. Raises `MismatchError`
    for a file that is no lease."""
    numbers = lease_numbers(storage, prefix)
    record = _read(storage, prefix + numbers[-1]) if numbers else None
    if record is None:
        return None
    return Holder(
        name=numbers[-1],
        host=str(record["host"]),
        process=int(record["process"]),
        since=float(record["since"]),
        until=float(record["until"]),
        is_alive=_is_alive(record),
        is_released=bool(record["released"]),
    )


def is_held(storage: Storage, name: str, prefix: str) -> bool:
    """Return whether a lease, by its file's name, is still the newest one and its holder lives."""
    numbers = lease_numbers(storage, prefix)
    holder = _read(storage, name) if numbers and prefix + numbers[-1] == name else None
    return holder is not None and _is_alive(holder)


def lease_numbers(storage: Storage, prefix: str) -> list[str]:
    """Return the names of the leases with a prefix, without it, the newest last."""
    folder, _, start = prefix.rpartition("/")
    return sorted(
        name.removeprefix(start)
        for name in storage.names(folder)
        if name.startswith(start) and name.endswith(".json") and name.removeprefix(start)[:-5].isdigit()
    )


def lease_facts(storage: Storage, prefix: str, key: str) -> list[object]:
    """Return the fact ``key`` of all leases with a prefix: those of a live holder and of dead ones."""
    records = (_read(storage, prefix + number) for number in lease_numbers(storage, prefix))
    return [record[key] for record in records if record is not None and key in record]


def _read(storage: Storage, name: str) -> dict[str, Any] | None:
    """A holder's record; None if its file is gone (released and cleaned meanwhile)."""
    try:
        data = storage.read(name)
    except StorageError:
        return None
    try:
        facts = json.loads(data)
        {key: facts[key] for key in ("host", "process", "started", "since", "until", "released")}
    except (ValueError, KeyError, TypeError) as error:
        raise MismatchError(
            "not a lock file",
            hint="delete it, if surely no other nnjobs works here",
            file=f"{storage.root}/{name}",
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
