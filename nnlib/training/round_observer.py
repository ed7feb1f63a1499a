"""What becomes of a round that a group has averaged: all workers know its outputs, worker 0's observer is told."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from nnlib.aggregation.drift import DriftSummary, drift_rows, drift_summary
from nnlib.collective.communicator import Communicator
from nnlib.core.arrays import Vector
from nnlib.core.errors import JobError, NnjobsError
from nnlib.run.checkpoint import Checkpoint
from nnlib.training.advance import epochs_left
from nnlib.training.allreduce_round import (
    Share,
    TroubleError,
    decoded_report,
    encoded,
    gathered_residuals,
    raise_trouble,
)
from nnlib.training.round_result import TrialOutput, check_records
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


class Told:
    """What a worker tells of its rounds. ``trouble``: an error of its own that the others are yet to be told of."""

    def __init__(self, worker: LocalWorker, group: Communicator, observer: RoundObserver | None) -> None:
        self.trouble: NnjobsError | None = None
        self._worker, self._group, self._observer = worker, group, observer
        self._since, self._sent = time.perf_counter(), group.sent_bytes

    def report(self, round_: int, *, may_commit: bool = True) -> WorkerReport:
        """Begin this worker's report of the round that comes next: whether to commit it, or its trouble."""
        due = may_commit and self._observer is not None and self._observer.is_commit_due(round_)
        return WorkerReport(commit=due, error=self.trouble)

    def round(self, before: Checkpoint, after: Checkpoint, outputs: Mapping[int, TrialOutput], share: Share) -> None:
        """Tell the observer of a round that led to ``after``. All workers call it: a commit has something of each."""
        last = not epochs_left(self._worker.spec, after)
        commit = share.commit or last
        if commit:
            after.residuals = gathered_residuals(self._worker, self._group, after)
        now, sent = time.perf_counter(), self._group.sent_bytes
        times = RoundTimes(now - self._since, share.waited, sent - self._sent)
        self._since, self._sent = now, sent
        if self._observer is None:
            return
        try:
            self._observer.on_round(before, after, outputs, times, commit=commit, last=last)
            if last:
                self._observer.finish()
        except NnjobsError as error:
            self.trouble = error

    def end(self) -> None:
        """Tell the last trouble. Nobody leaves before worker 0 has committed the end: until then all are needed, should
        one of them be lost."""
        answers = self._group.exchange([[encoded(WorkerReport(error=self.trouble).to_json())]] * self._group.workers)
        raise_trouble([decoded_report(self._worker, frames[0]) for frames in answers], self._worker.number)


def outputs_of(
    worker: LocalWorker, group: Communicator, before: Checkpoint, share: Share
) -> tuple[dict[int, TrialOutput], Share]:
    """What all workers give of every trial that was active, how far each went from the average among it. Raises
    `TroubleError`."""
    raise_trouble(share.reports, worker.number)
    began = time.perf_counter()
    outputs = {}
    for index in before.active:
        output = TrialOutput(records={peer: report.records[index] for peer, report in enumerate(share.reports)})
        output.join_scores(worker.spec, index)
        if output.diverged is None:
            output.average, output.buffers = share.averages[index], share.buffers.get(index, ())
        outputs[index] = output
    try:
        check_records(worker.spec, outputs)
    except JobError as error:  # all workers find it, one tells of it
        raise TroubleError(error, worker.number == 0) from error
    _exchange_drift(group, before, share.own, outputs)
    return outputs, share._replace(waited=share.waited + time.perf_counter() - began)


def _exchange_drift(
    group: Communicator,
    before: Checkpoint,
    own: Mapping[int, Vector],
    outputs: Mapping[int, TrialOutput],
) -> None:
    """Each worker measures how far it went from the average, for only it has its own weights, and tells all others."""
    measured = {}
    for index, output in outputs.items():
        if output.average is not None:
            start = before.trials[index].weights
            measured[index] = drift_summary(drift_rows(own[index][: start.size], output.average[: start.size], start))
    told = group.exchange(
        [[encoded({str(index): drift.to_json() for index, drift in measured.items()})]] * group.workers
    )
    for peer, frames in enumerate(told):
        for index, drift in json.loads(bytes(frames[0])).items():
            outputs[int(index)].drift[peer] = DriftSummary.from_json(drift)
