"""The driver's failure detector for a collective job: it ends tasks that hang, so that others replace them.

It also ends the job when not all of its workers come to run at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobs.collective.gang_state import GangState
from jobs.collective.job_folder import GIVEN_UP, LOST_PREFIX, GangFailure, JobFolder, LossReport
from jobs.collective.progress import EventSink
from jobs.mapreduce.launcher import RoundLauncher
from nnlib.collective.curve_keys import make_keys
from nnlib.collective.rendezvous import list_generations
from nnlib.core.errors import JobError
from nnlib.core.events import Note
from nnlib.run.run_events import WorkerLostEvent
from nnlib.storage import Storage

REJOIN_SECONDS = 2.0
"""How long a worker that others have reported lost may take to join a newer generation."""


class FailureDetector:
    """Watches the folder of a collective job. ``error`` says why the job was ended, if it was."""

    def __init__(
        self,
        events: EventSink,
        launcher: RoundLauncher,
        run: Storage,
        folder: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the job's ``folder`` in the run directory ``run``, with a new key in it."""
        self._events, self._launcher, self._clock = events, launcher, clock
        self._folder = JobFolder(run, folder)
        make_keys(self._folder.files)
        self._losses = LossReports(self._folder)
        self._deadline: float | None = None
        self._gang = GangState(self._folder, launcher.spec.workers)
        self.error: JobError | None = None
        self.missing = ""
        """For whom the group waits, in words; "" where it is complete."""

    def check(self) -> None:
        """Act on what the tasks have reported since the last call. Raises `StorageError`; the next call makes up for
        it."""
        names = self._folder.names()
        if self.error is None:
            self._require_gang(names)
        self.missing = self._gang.text(names)
        for lost in self._losses.confirm(names):
            self._events.record_event(WorkerLostEvent(lost.worker, lost.generation, lost.why))
            self._events.notify(
                Note(f"worker {lost.worker}: {lost.why}; the others wait for its replacement", "warning")
            )
            if lost.attempt is not None:
                self._launcher.session.end_task(lost.worker, lost.attempt)

    def _require_gang(self, names: Sequence[str]) -> None:
        """End the job if its group was given up. Workers that run give up by themselves when others do not come; but
        where none runs, only the driver can notice."""
        spec = self._launcher.spec
        if self._deadline is None and self._launcher.session.queued:
            self._deadline = self._clock() + spec.config.sync.gang_timeout_seconds
        is_late = self._deadline is not None and self._clock() > self._deadline
        if is_late and GIVEN_UP not in names and not list_generations(names, spec.workers):
            seconds = spec.config.sync.gang_timeout_seconds
            self._folder.give_up(GangFailure((), tuple(range(spec.workers)), seconds))
            names = self._folder.names()
        if GIVEN_UP in names:
            self.error = self._folder.gang_error(spec)
            self._launcher.session.end_job()


@dataclass(frozen=True)
class LostWorker:
    """A worker that its group has lost: the attempt of its task (None: not known), in which generation, and why."""

    worker: int
    attempt: str | None
    generation: int
    why: str


class LossReports:
    """Decides which of the workers that others report lost are lost.

    A worker that joins a newer generation is alive: it had only noticed another loss earlier than its peers.
    """

    def __init__(self, folder: JobFolder, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._read: set[str] = set()
        self._pending: dict[tuple[int, int], tuple[float, LostWorker]] = {}
        """(generation, worker) -> when it was reported, and what."""
        self._decided: set[tuple[int, int]] = set()

    def confirm(self, names: Sequence[str]) -> list[LostWorker]:
        """Return the losses that have become certain: workers that were replaced, or that did not rejoin in time.

        ``names``: those of the folder's files.
        """
        for name in names:
            if name.startswith(LOST_PREFIX) and name not in self._read:
                self._read.add(name)
                self._add(self._folder.read_loss(name))
        confirmed = []
        for key, (since, lost) in list(self._pending.items()):
            successors = self._later_incarnations(names, lost)
            if not successors and self._clock() - since < REJOIN_SECONDS:
                continue
            del self._pending[key]
            self._decided.add(key)
            if self._folder.incarnation(*key) not in successors:
                confirmed.append(lost)
        return confirmed

    def _add(self, report: LossReport) -> None:
        for worker in report.workers:
            key = (report.generation, worker)
            if key not in self._decided and key not in self._pending:
                lost = LostWorker(worker, self._folder.attempt(*key), report.generation, report.why)
                self._pending[key] = (self._clock(), lost)

    def _later_incarnations(self, names: Sequence[str], lost: LostWorker) -> set[str | None]:
        """The tasks that have joined newer generations as this worker."""
        return {
            self._folder.incarnation(generation, lost.worker)
            for generation, workers in list_generations(names, lost.worker + 1).items()
            if generation > lost.generation and lost.worker in workers
        }
