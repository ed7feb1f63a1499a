"""The events of a run, as ``events.jsonl`` keeps them: attempts, hosts, times. They may differ between two runs of the
same bits, so nothing of them is ever hashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from nnlib.storage.traffic import Price


@dataclass(frozen=True)
class RunEvent:
    """Base of all events. ``kind`` is the class's name in the file; fields of ``OPTIONAL`` are left out where None."""

    kind: ClassVar[str]
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON-able data, its kind under ``event``."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        kept = {name: value for name, value in values.items() if value is not None or name not in self.OPTIONAL}
        return {"event": self.kind, **kept}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote, and what older versions wrote with fewer keys. Raises `TypeError` where a key is
        absent that every version wrote."""
        return cls(**{each.name: data[each.name] for each in fields(cls) if each.name in data})


@dataclass(frozen=True)
class StartEvent(RunEvent):
    """A driver began or went on with the run, after ``round`` rounds, with ``slots`` tasks at once. ``uploaded_bytes``
    went to storages on other machines before the first round."""

    kind: ClassVar[str] = "start"
    round: int
    runner: str
    slots: int = 1
    host: str = ""
    process: int = 0
    uploaded_bytes: int = 0


@dataclass(frozen=True)
class RoundEvent(RunEvent):
    """A round was done in ``seconds``.

    In rounds mode ``job_seconds`` of them went into the job, the rest into the outer step and the commit; in collective
    mode worker 0 spent ``exchange_seconds`` of them in exchanges. ``worker_seconds`` are by phase, summed over all
    tasks. ``shuffled_bytes`` went from worker to worker, ``uploaded_bytes`` to storages on other machines since the
    round before was recorded (of the first round: since the start). ``requests`` went in the same time, from all tasks
    and the driver, to storages that charge for them, by price (`nnlib.storage.traffic.Price`).
    """

    kind: ClassVar[str] = "round"
    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"job_seconds", "exchange_seconds", "shuffled_bytes", "requests"})
    round: int
    seconds: float
    worker_seconds: Mapping[str, float]
    job_seconds: float | None = None
    exchange_seconds: float | None = None
    shuffled_bytes: int | None = None
    uploaded_bytes: int = 0
    requests: Mapping[Price, int] | None = None


@dataclass(frozen=True)
class NodesEvent(RunEvent):
    """The nodes of a cluster, as the first job's tasks report them (`jobs.runners.node_check.node_line`)."""

    kind: ClassVar[str] = "nodes"
    nodes: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class WorkerLostEvent(RunEvent):
    """The group of a collective job lost a worker in its ``generation``, and a replacement was started."""

    kind: ClassVar[str] = "lost"
    worker: int
    generation: int
    why: str


@dataclass(frozen=True)
class AttemptFailedEvent(RunEvent):
    """An attempt (from 1) of a local task failed."""

    kind: ClassVar[str] = "attempt"
    job: str
    task: str
    attempt: int
    failure: str | None


@dataclass(frozen=True)
class FaultEvent(RunEvent):
    """A fault was injected into an attempt of a local task (``--chaos``)."""

    kind: ClassVar[str] = "chaos"
    job: str
    task: str
    attempt: int
    fault: str


@dataclass(frozen=True)
class JobEvent(RunEvent):
    """A job of a cluster ended with exit ``status``: its application, whether it ran in its master's container
    (``uber``), attempts of map tasks, counters, the attempts that ``failed``."""

    kind: ClassVar[str] = "job"
    job: str
    application: str | None = None
    uber: bool = False
    map_attempts: int | None = None
    status: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    failed: Sequence[str] = ()


KINDS: dict[str, type[RunEvent]] = {
    kind.kind: kind
    for kind in (StartEvent, RoundEvent, NodesEvent, WorkerLostEvent, AttemptFailedEvent, FaultEvent, JobEvent)
}
