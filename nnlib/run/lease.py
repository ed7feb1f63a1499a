"""The lock of a run directory: one driver at a time.

Clocks only decide when a dead driver's run may go on: if a stale driver wakes up, its commit of a round is refused
(`nnlib.run.round_store`), whatever the clocks show.
"""

from __future__ import annotations

from nnlib.storage import Storage, lease
from nnlib.storage.lease import LEASE_SECONDS, Holder, Lease, LeaseKind, lease_numbers, newest_holder

FOLDER = "lock"

_KIND = LeaseKind(
    prefix=f"{FOLDER}/",
    busy="another driver is training this run",
    where="run",
    dead="a dead driver's lock",
    stays=True,
)


class RunLock(Lease):
    """The lock of a run, held while the block runs. Entering raises `StorageError`, which names the holder, if another
    live driver holds it."""

    def __init__(self, storage: Storage, *, lease_seconds: float = LEASE_SECONDS) -> None:
        super().__init__(storage, _KIND, lease_seconds=lease_seconds)


def current_lease(storage: Storage) -> str:
    """The name of the newest lease, for `is_held`; called by its holder."""
    return lease_numbers(storage, _KIND.prefix)[-1]


def driver_of(storage: Storage) -> Holder | None:
    """Return the driver that holds the lock, or held it last; None if the run has never had one. Raises as
    `nnlib.storage.lease.newest_holder` does."""
    return newest_holder(storage, _KIND.prefix)


def is_held(storage: Storage, name: str) -> bool:
    """Whether a lease is still the newest one and its driver lives. Tasks ask before they write for their driver."""
    return lease.is_held(storage, _KIND.prefix + name, _KIND.prefix)


def was_locked(storage: Storage) -> bool:
    """Whether a driver has ever held the lock: what a run has there is then ours."""
    return bool(lease_numbers(storage, _KIND.prefix))
