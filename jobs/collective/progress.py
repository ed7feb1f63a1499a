"""How the driver reports the progress of a collective job: from its status file and from the committed rounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from jobs.collective.status_file import CollectiveStatus, read_status
from nnlib.core.errors import NnjobsError
from nnlib.core.events import Event, GroupProgress, TrialStopped, WorkerProgress
from nnlib.core.waiting import Wait, waiting_for
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.round_store import RoundStore
from nnlib.run.run_events import RunEvent
from nnlib.run.spec import JobSpec
from nnlib.training.round_events import round_done

WORKER_REPORT_SECONDS = 20.0
"""How often the workers' speed and waiting times are reported."""
POLL_SECONDS = 0.5
"""How often the driver reads what the job has written; half as often in a remote storage."""


class EventSink(Protocol):
    """Where a collective job's driver part sends events: the driver."""

    def notify(self, event: Event) -> None:
        """Send an event to the listeners: terminal, trackers."""

    def record_event(self, event: RunEvent) -> None:
        """Add an event to the run's journal."""

    def note_group(self, committed: int, workers: Sequence[WorkerProgress]) -> None:
        """Note for the run's status the newest commit of the job, and what its workers did in the newest round."""

    def renew_view(self, store: RoundStore) -> None:
        """Write the view of the committed rounds' metrics anew, if it is old."""


class ProgressReporter:
    """Reports each round once, in order, when the status file or a commit shows that it is done."""

    def __init__(
        self,
        events: EventSink,
        spec: JobSpec,
        store: RoundStore,
        start: Checkpoint,
        check_failures: Callable[[], None] | None,
        missing: Callable[[], str] = lambda: "",
    ) -> None:
        """``check_failures`` is called at every poll; None for a group in one process. The workers of such a group
        take turns, so their waiting times mean nothing and are not reported. ``missing`` says for whom the group waits,
        "" where it is complete."""
        self._events, self._spec, self._store, self._check_failures = events, spec, store, check_failures
        self._missing, self._shown_missing = missing, ""
        self.generation = 1
        """How many times the group has been formed, as far as is known."""
        self._reported = start.round
        self._workers_reported_at = time.monotonic()
        self._stopped = threading.Event()

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Poll in a thread while the block runs, and once when it has ended."""
        with waiting_for("") as wait:
            thread = threading.Thread(target=self._poll_until_stopped, args=(wait,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                self._stopped.set()
                thread.join()
                self.poll(is_last=True)

    def _poll_until_stopped(self, wait: Wait) -> None:
        is_remote = self._store.storage.is_remote
        while not self._stopped.wait(2 * POLL_SECONDS if is_remote else POLL_SECONDS):
            before = self._reported
            self.poll()
            self._show(wait, is_new_round=self._reported != before)

    def _show(self, wait: Wait, *, is_new_round: bool) -> None:
        """Say what the group does: it waits for workers, or trains a round that takes long."""
        missing = self._missing()
        text = f"the group of workers: {missing}" if missing else f"round {self._reported + 1} is being trained"
        if is_new_round or bool(missing) != bool(self._shown_missing):
            wait.restart(text)
        wait.what, self._shown_missing = text, missing

    def poll(self, *, is_last: bool = False) -> None:
        """Report what is new. Errors of the storage are ignored: the next call makes up for them."""
        try:
            if self._check_failures is not None:
                self._check_failures()
            status = read_status(self._store.storage)
            if status is not None:
                self.generation = status.generation
                self._events.note_group(status.committed, status.workers)
                self._report_rounds(status)
                self._report_workers(status, is_last)
                self._events.renew_view(self._store)
            if is_last:
                self._report_committed(self._store.newest())
        except NnjobsError:
            return

    def _report_rounds(self, status: CollectiveStatus) -> None:
        for report in status.rounds:
            round_ = report.done.round
            if round_ > self._reported + 1:  # a status was written and replaced between two polls
                self._report_committed(min(round_ - 1, status.committed))
            if round_ != self._reported + 1:
                continue  # reported before the group was formed again, or to be reported when it is committed
            for stopped in report.stopped:
                self._events.notify(stopped)
            self._events.record_event(report.journal)
            self._events.notify(report.done)
            self._reported = round_

    def _report_workers(self, status: CollectiveStatus, is_last: bool) -> None:
        if self._check_failures is None:
            return
        if is_last or time.monotonic() - self._workers_reported_at >= WORKER_REPORT_SECONDS:
            self._workers_reported_at = time.monotonic()
            self._events.notify(GroupProgress(status.round, status.seconds, status.workers))

    def _report_committed(self, newest: int) -> None:
        """Report rounds up to ``newest`` from their metrics, which have no times."""
        for round_ in range(self._reported + 1, newest + 1):
            metrics = self._store.log.metrics(round_)
            for trial in metrics.trials:
                if trial.status != "active":
                    self._events.notify(TrialStopped(trial.trial, trial.scores.split, round_ - 1, trial.status))
            self._events.notify(round_done(self._spec.config, metrics, 0.0))
            self._reported = round_
