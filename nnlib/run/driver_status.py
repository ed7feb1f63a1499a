"""``status.json`` of a run: what its driver does, or how it ended. The driver writes it now and then, `nnjobs status`
reads it from any machine. It only informs: what counts is what the rounds, ``final/`` and the lease say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from nnlib import FORMAT_VERSION
from nnlib.core.errors import StorageError
from nnlib.core.events import WorkerProgress
from nnlib.core.waiting import WaitReport
from nnlib.run.directory import SPEC, STATUS
from nnlib.storage import Storage

MOST_WORKERS = 256
"""Workers that a status lists, at most: of more, the slowest. It bounds the size of the file, to about 40 kB."""
MOST_WAITS = 8
MOST_TEXT = 500
"""Characters of a text in a status, at most."""

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"


@dataclass(frozen=True)
class DriverStatus:
    """What a driver says of itself.

    ``lease`` is the file of its lease, ``time`` when this was written, ``began`` when the driver began (seconds since
    1970). ``state`` is one of the names above; ``reason`` says why it ended, with the command's ``exit_code``.

    ``phase`` is what it does besides rounds, such as "scoring the final models". ``round`` is the newest round that is
    done, ``committed`` the newest that is committed, at ``committed_time``. ``rounds`` is None where their lengths are
    chosen on the way. ``seconds_left`` is an estimate; None where there is none yet.

    ``workers`` are those of the newest round, of ``worker_count``; at most `MOST_WORKERS`. ``application`` is the job
    that runs on a cluster, ``job`` its name in the run, ``task_folder`` the folder on ``host`` where local tasks write.
    """

    lease: str
    host: str
    process: int
    began: float
    time: float
    runner: str
    mode: str
    state: str = RUNNING
    reason: str | None = None
    exit_code: int | None = None
    phase: str | None = None
    round: int = 0
    rounds: int | None = None
    epoch: int = 0
    epochs: int = 0
    committed: int = 0
    committed_time: float | None = None
    seconds_left: float | None = None
    worker_count: int = 0
    workers: tuple[WorkerProgress, ...] = ()
    waits: tuple[WaitReport, ...] = ()
    application: str | None = None
    job: str | None = None
    task_folder: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON-able data of bounded size."""
        shown = self
        if len(self.workers) > MOST_WORKERS:
            slowest = sorted(self.workers, key=lambda worker: worker.examples_per_second or 0.0)[:MOST_WORKERS]
            shown = replace(self, workers=tuple(sorted(slowest, key=lambda worker: worker.worker)))
        waits = [{"what": wait.what[:MOST_TEXT], "seconds": round(wait.seconds, 1)} for wait in self.waits[:MOST_WAITS]]
        reason = None if self.reason is None else self.reason[:MOST_TEXT]
        return {"format_version": FORMAT_VERSION, **asdict(shown), "waits": waits, "reason": reason}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DriverStatus:
        """Read what `to_json` wrote. Raises `KeyError`, `TypeError` or `ValueError` for other data."""
        values = {name: value for name, value in data.items() if name in cls.__dataclass_fields__}
        values["workers"] = tuple(WorkerProgress(**worker) for worker in data["workers"])
        values["waits"] = tuple(WaitReport(str(wait["what"]), float(wait["seconds"])) for wait in data["waits"])
        return cls(**values)


def write_driver_status(run: Storage, status: DriverStatus) -> None:
    """Write the status of the run directory ``run``, if the run is there: one that was moved away needs none."""
    if run.exists(SPEC):
        run.write(STATUS, json.dumps(status.to_json()).encode() + b"\n")


def read_driver_status(run: Storage) -> DriverStatus | None:
    """Read the status of the run directory ``run``; None where there is none, or something else in its place."""
    if not run.exists(STATUS):
        return None
    try:
        data = json.loads(run.read(STATUS))
        return DriverStatus.from_json(data) if data["format_version"] == FORMAT_VERSION else None
    except (StorageError, ValueError, KeyError, TypeError):
        return None
