"""The status file of a collective job: worker 0 writes it, the driver reads it to report the progress."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nnlib import FORMAT_VERSION
from nnlib.core.events import RoundDone, TrialStopped, WorkerProgress
from nnlib.run.directory import GROUP
from nnlib.run.run_events import RoundEvent
from nnlib.storage import Storage

STATUS = f"{GROUP}/status.json"
JOURNAL = ("round", "seconds", "exchange_seconds", "worker_seconds", "shuffled_bytes", "uploaded_bytes")
"""What a status has of a round's event for the journal."""


@dataclass(frozen=True)
class RoundReport:
    """What the driver reports of a round: the event for people, the trials that it ended, the event for the journal."""

    done: RoundDone
    stopped: tuple[TrialStopped, ...]
    journal: RoundEvent

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        return {
            "done": asdict(self.done),
            "stopped": [asdict(event) for event in self.stopped],
            "journal": {name: getattr(self.journal, name) for name in JOURNAL},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RoundReport:
        """Read what `to_json` wrote."""
        metric = data["done"]["test_metric"]
        return cls(
            RoundDone(**{**data["done"], "test_metric": None if metric is None else tuple(metric)}),
            tuple(TrialStopped(**stopped) for stopped in data["stopped"]),
            RoundEvent.from_json(data["journal"]),
        )


@dataclass(frozen=True)
class CollectiveStatus:
    """The state of a collective job: how often the group has been formed, the newest round and its seconds, the newest
    committed round, the rounds since then, and every worker's part in the newest one."""

    generation: int
    round: int
    seconds: float
    committed: int
    rounds: tuple[RoundReport, ...]
    workers: tuple[WorkerProgress, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON-able data."""
        return {
            "format_version": FORMAT_VERSION,
            "generation": self.generation,
            "round": self.round,
            "seconds": self.seconds,
            "committed": self.committed,
            "rounds": [report.to_json() for report in self.rounds],
            "workers": [asdict(worker) for worker in self.workers],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CollectiveStatus:
        """Read what `to_json` wrote."""
        return cls(
            data["generation"],
            data["round"],
            data["seconds"],
            data["committed"],
            tuple(RoundReport.from_json(report) for report in data["rounds"]),
            tuple(WorkerProgress(**worker) for worker in data["workers"]),
        )


def write_status(run: Storage, status: CollectiveStatus) -> None:
    """Write the status file of the run directory ``run``."""
    run.write(STATUS, json.dumps(status.to_json()).encode() + b"\n")


def read_status(run: Storage) -> CollectiveStatus | None:
    """Read the status file of the run directory ``run``.

    Returns None where there is none, or something else in its place: a status only informs, it may be missing.
    """
    if not run.exists(STATUS):
        return None
    try:
        data = json.loads(run.read(STATUS))
    except ValueError:
        return None
    if not isinstance(data, dict) or data.get("format_version") != FORMAT_VERSION:
        return None
    return CollectiveStatus.from_json(data)
