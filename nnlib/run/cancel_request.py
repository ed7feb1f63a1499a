"""Requests to end a run: `nnjobs cancel` writes one, from any machine, and the driver finds it.

A request is for one driver, by the name of its lease: ``cancel/000003.json``. So none that comes too late ends the next
driver, and of several requests for a driver the first counts.
"""

from __future__ import annotations

import getpass
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nnlib.core.errors import StorageError
from nnlib.run.directory import CANCEL
from nnlib.storage import Storage


@dataclass(frozen=True)
class CancelRequest:
    """Who wants a run to end, from which machine, and since when (seconds since 1970)."""

    user: str
    host: str
    time: float

    @classmethod
    def ours(cls) -> CancelRequest:
        """Return a request of this user, made now."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a user without a name
            user = "somebody"
        return cls(user, platform.node(), time.time())

    def to_json(self) -> dict[str, Any]:
        """Return the request as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CancelRequest:
        """Read what `to_json` wrote. Raises `KeyError`, `TypeError` or `ValueError` for other data."""
        return cls(str(data["user"]), str(data["host"]), float(data["time"]))

    def text(self) -> str:
        """Return who asked, and when, for people."""
        return f"{self.user} on {self.host} at {time.strftime('%H:%M:%S', time.localtime(self.time))}"


def ask_to_end(run: Storage, lease: str, request: CancelRequest) -> bool:
    """Ask the driver with this lease to end the run in the directory ``run``; False if somebody has asked before."""
    return run.create(f"{CANCEL}/{lease}", json.dumps(request.to_json()).encode() + b"\n")


def read_request(run: Storage, lease: str) -> CancelRequest | None:
    """Return the request to the driver with this lease; None if there is none."""
    name = f"{CANCEL}/{lease}"
    if not run.exists(name):
        return None
    try:
        return CancelRequest.from_json(json.loads(run.read(name)))
    except (StorageError, ValueError, KeyError, TypeError):
        return CancelRequest("somebody", "an unknown machine", time.time())  # the file alone asks


def forget_requests(run: Storage, lease: str) -> None:
    """Delete the requests to earlier drivers than the one with this lease; called by that driver."""
    for name in run.names(CANCEL):
        if name < lease:
            run.delete(f"{CANCEL}/{name}")
