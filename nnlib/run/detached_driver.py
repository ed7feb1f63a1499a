"""``driver/`` of a run: the job that drives it on a cluster (``nnjobs train --detach``)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nnlib.core.errors import NnjobsError, StorageError, from_record
from nnlib.storage import Storage

DRIVER = "driver"
"""Folder of the detached driver: its job's configuration, plan and output. It holds nothing that a run needs."""
RECORD = f"{DRIVER}/application.json"
ERROR = "error.json"
"""In the folder of a driver's job: the error that it ended with."""


@dataclass(frozen=True)
class DetachedDriver:
    """The application whose one task drives the run, and when it was submitted (seconds since 1970)."""

    application: str
    time: float

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DetachedDriver:
        """Read what `to_json` wrote. Raises `KeyError`, `TypeError` or `ValueError` for other data."""
        return cls(str(data["application"]), float(data["time"]))


def write_detached_driver(run: Storage, driver: DetachedDriver) -> None:
    """Write the record into the run directory ``run``, over that of an earlier driver."""
    run.write(RECORD, json.dumps(driver.to_json()).encode() + b"\n")


def read_detached_driver(run: Storage) -> DetachedDriver | None:
    """Return the last detached driver of a run; None if it has had none."""
    if not run.exists(RECORD):
        return None
    try:
        return DetachedDriver.from_json(json.loads(run.read(RECORD)))
    except (StorageError, ValueError, KeyError, TypeError):
        return None


def write_driver_error(home: Storage, error: NnjobsError) -> None:
    """Write the error by which a driver ended into its job's folder ``home``, where that is still there."""
    with contextlib.suppress(StorageError):
        if home.names():
            home.write(ERROR, json.dumps(error.to_record(), default=str).encode() + b"\n")


def read_driver_error(home: Storage) -> NnjobsError | None:
    """Return the error in a driver's folder; None if it has left none."""
    if not home.exists(ERROR):
        return None
    try:
        return from_record(json.loads(home.read(ERROR)))
    except (StorageError, ValueError, AttributeError):
        return None
