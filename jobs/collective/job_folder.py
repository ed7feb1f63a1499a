"""The files through which the tasks of a collective job and its driver communicate: one folder of the run directory.

The folder ``collective/<job>/`` holds the group's key (`nnlib.collective.curve_keys`), the members' files
(`nnlib.collective.rendezvous`), and the records of this module: which attempt each task is, whom the workers have lost,
and that the group was given up. With these the driver can end a task that hangs, so that its runner starts another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nnlib.collective.rendezvous import list_generations, member_file
from nnlib.core.errors import JobError, StorageError
from nnlib.run.spec import JobSpec
from nnlib.storage import Storage, storage

GIVEN_UP = "given-up.json"
LOST_PREFIX = "lost-"


class JobFiles(NamedTuple):
    """Where the tasks of a collective job work: the run directory's address, the job's folder in it, and the name of
    the lease of the driver that starts them; and how many seconds it may take besides, until the runner has noticed
    that a machine is lost and starts a worker elsewhere."""

    run_dir: str
    folder: str
    lease: str
    replacement_seconds: float = 0.0


@dataclass(frozen=True)
class TaskRecord:
    """Which task works for a worker: the runner's name of the ``attempt`` (None: it has none), and its process."""

    worker: int
    attempt: str | None
    host: str
    process: int

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able data."""
        return {"worker": self.worker, "attempt": self.attempt, "host": self.host, "process": self.process}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskRecord:
        """Read what `to_json` wrote. Raises `ValueError`, `KeyError` or `TypeError` for other data."""
        attempt = data["attempt"]
        return cls(int(data["worker"]), None if attempt is None else str(attempt), data["host"], int(data["process"]))


@dataclass(frozen=True)
class LossReport:
    """A worker's report that it has lost ``workers`` in a ``generation``, and why."""

    generation: int
    workers: tuple[int, ...]
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        return {"generation": self.generation, "workers": list(self.workers), "why": self.why}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LossReport:
        """Read what `to_json` wrote."""
        return cls(data["generation"], tuple(data["workers"]), data["why"])


@dataclass(frozen=True)
class GangFailure:
    """That not all workers ran at once within ``seconds``: those that were ``present`` and those that were
    ``missing``."""

    present: tuple[int, ...]
    missing: tuple[int, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able data."""
        return {"came": sorted(self.present), "missing": sorted(self.missing), "seconds": self.seconds}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GangFailure:
        """Read what `to_json` wrote."""
        return cls(tuple(data["came"]), tuple(data["missing"]), float(data["seconds"]))


class JobFolder:
    """Reads and writes the records of one collective job. ``files`` is the storage with the folder as its root."""

    def __init__(self, run: Storage, folder: str) -> None:
        """``run``: the run directory; ``folder``: the job's folder in it."""
        self.files = storage(f"{run.root}/{folder}", private=True)

    def names(self) -> Sequence[str]:
        """Return the names of all files in the folder."""
        return self.files.names()

    def add_task(self, incarnation: str, task: TaskRecord) -> None:
        """Record a task under its member's random name."""
        self._create(_task_file(incarnation), task.to_json())

    def task(self, generation: int, worker: int) -> TaskRecord | None:
        """Return a worker's task in a generation; None if it is not known."""
        incarnation = self.incarnation(generation, worker)
        try:
            return TaskRecord.from_json(json.loads(self.files.read(_task_file(str(incarnation)))))
        except (StorageError, ValueError, KeyError, TypeError):
            return None

    def attempt(self, generation: int, worker: int) -> str | None:
        """Return the attempt of a worker's task in a generation; None if it is not known."""
        task = self.task(generation, worker)
        return None if task is None else task.attempt

    def incarnation(self, generation: int, worker: int) -> str | None:
        """Return the random name of a worker's task in a generation; None if it is not known."""
        try:
            return str(json.loads(self.files.read(member_file(generation, worker)))["incarnation"])
        except (StorageError, ValueError, KeyError, TypeError):
            return None

    def report_loss(self, reporter: int, report: LossReport) -> None:
        """Write a worker's report; the first one of each worker and generation counts."""
        self._create(f"{LOST_PREFIX}{report.generation:06d}-by-{reporter:06d}.json", report.to_json())

    def read_loss(self, name: str) -> LossReport:
        """Read a report by its file's name, which starts with `LOST_PREFIX`."""
        return LossReport.from_json(json.loads(self.files.read(name)))

    def give_up(self, failure: GangFailure) -> None:
        """Let all tasks of the job stop waiting for the missing workers; the first call counts."""
        self._create(GIVEN_UP, failure.to_json())

    def is_given_up(self) -> bool:
        """Return whether some task or the driver has given the group up."""
        return self.files.exists(GIVEN_UP)

    def gang_error(self, spec: JobSpec) -> JobError:
        """Return the error of a group that was given up; its ``slots`` say how many workers ran at once."""
        failure = GangFailure.from_json(json.loads(self.files.read(GIVEN_UP)))
        present = len(failure.present)
        generations = list_generations(self.names(), spec.workers)
        complete = [number for number, workers in generations.items() if len(workers) == spec.workers]
        if complete:
            lost = ", ".join(f"worker {worker}{self._last_host(worker, max(complete))}" for worker in failure.missing)
            return JobError(
                f"{lost}: lost, and not replaced within {failure.seconds:g} s ({present} of {spec.workers} workers "
                "are left)",
                hint="see whether the node runs (yarn node -list -all) and whether others have room for another "
                "container; go on with --resume, wait longer (sync.gang_timeout_seconds), or let it go on in rounds "
                "mode (sync.gang_fallback: rounds)",
                slots=present,
            )
        return JobError(
            f"only {present} of {spec.workers} workers came to run at once within "
            f"{failure.seconds:g} s (missing: {', '.join(map(str, failure.missing))})",
            hint="use as many slots as workers, wait longer (sync.gang_timeout_seconds), or let it go on in rounds "
            "mode (sync.gang_fallback: rounds)",
            slots=present,
        )

    def host(self, generation: int, worker: int) -> str | None:
        """Return the host of a worker's task in a generation; None if it is not known."""
        task = self.task(generation, worker)
        return None if task is None else task.host

    def _last_host(self, worker: int, generation: int) -> str:
        host = self.host(generation, worker)
        return "" if host is None else f" on {host}"

    def _create(self, name: str, data: Mapping[str, Any]) -> None:
        self.files.create(name, json.dumps(data).encode() + b"\n")


def _task_file(incarnation: str) -> str:
    return f"task-{incarnation}.json"
