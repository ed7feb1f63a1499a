"""How the rounds of a group reach an observer, which commits them at worker 0, and its errors reach all workers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from nnlib.collective.communicator import Communicator
from nnlib.core.errors import NnjobsError
from nnlib.run.checkpoint import Checkpoint
from nnlib.training.advance import epochs_left
from nnlib.training.contribution import AveragedRound, exchange_reports, raise_worker_error
from nnlib.training.round_outputs import gather_kept
from nnlib.training.round_result import TrialOutput
from nnlib.training.worker import LocalWorker
from nnlib.training.worker_record import WorkerReport


@dataclass(frozen=True)
class RoundTimes:
    """What a round cost this worker's process: its seconds, those spent in exchanges, the bytes it sent."""

    seconds: float
    exchange: float
    sent: int


class RoundObserver(Protocol):
    """Receives every round that worker 0 has trained; `jobs.collective.background_committer` commits them."""

    def is_commit_due(self, round_: int) -> bool:
        """Return whether the next round, ``round_``, is to be committed."""

    def on_round(
        self,
        before: Checkpoint,
        after: Checkpoint,
        outputs: Mapping[int, TrialOutput],
        times: RoundTimes,
        *,
        commit: bool,
        last: bool,
    ) -> None:
        """Receive a round that led from ``before`` to ``after``. ``commit``: it is to be committed; ``last``: no trial
        goes on after it."""

    def finish(self) -> None:
        """Called after the last round; returns when everything is written."""


class RoundPublisher:
    """Publishes this worker's rounds to its observer, if it has one.

    ``error``: an error of this worker that its next report is to send to the others.
    """

    def __init__(self, worker: LocalWorker, group: Communicator, observer: RoundObserver | None) -> None:
        self.error: NnjobsError | None = None
        self._worker, self._group, self._observer = worker, group, observer
        self._since, self._sent = time.perf_counter(), group.sent_bytes

    def begin_report(self, round_: int, *, may_commit: bool = True) -> WorkerReport:
        """Begin this worker's report of the next round, ``round_``: whether to commit it, and `error`."""
        is_due = may_commit and self._observer is not None and self._observer.is_commit_due(round_)
        return WorkerReport(commit=is_due, error=self.error)

    def publish(
        self, before: Checkpoint, after: Checkpoint, outputs: Mapping[int, TrialOutput], averaged: AveragedRound
    ) -> None:
        """Pass a round that led to ``after`` to the observer. All workers call it: each contributes to a commit."""
        last = not epochs_left(self._worker.spec, after)
        commit = averaged.is_commit_due or last
        if commit:
            after.kept = gather_kept(self._worker, self._group, after)
        now, sent = time.perf_counter(), self._group.sent_bytes
        times = RoundTimes(now - self._since, averaged.waited, sent - self._sent)
        self._since, self._sent = now, sent
        if self._observer is None:
            return
        try:
            self._observer.on_round(before, after, outputs, times, commit=commit, last=last)
            if last:
                self._observer.finish()
        except NnjobsError as error:
            self.error = error

    def finish(self) -> None:
        """Wait until worker 0 has committed the last round, and raise `WorkerFailedError` if that failed.

        Nobody leaves before: until then all workers are needed, should one of them be lost.
        """
        reports = exchange_reports(self._worker, self._group, WorkerReport(error=self.error))
        raise_worker_error(reports, self._worker.number)
