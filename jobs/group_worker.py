"""One worker of a group that trains together: score, train, all-reduce, advance, round after round.

The station is the one of rounds mode (`jobs.tasks.local_round`, `jobs.advance.advance`); only the way of the partials
differs: they do not travel as lines through a reducer but in an all-reduce, all trials in the same one. Every worker
advances by itself, from the same records and averages, so all know the next round's models, who goes on and for how
many epochs, and nothing of that has to be sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from jobs.advance import advance, epochs_left
from jobs.group_rounds import (
    COMMIT,
    Share,
    TroubleError,
    averaged_round,
    encoded,
    gathered_residuals,
    raise_trouble,
    synchronous_round,
    trouble_record,
)
from jobs.local_worker import LocalWorker, Record
from jobs.outputs import TrialOutput, check_records
from jobs.tasks import Vector, drift_rows, drift_summary
from nnlib.checkpoint import Checkpoint
from nnlib.collective.communicator import Communicator
from nnlib.errors import JobError, NnjobsError


@dataclass(frozen=True)
class RoundTimes:
    """What a round cost this worker's process: its seconds, those spent in exchanges, the bytes it sent."""

    seconds: float
    exchange: float
    sent: int


class Observer(Protocol):
    """Who is told of every round (of worker 0: `jobs.group_record.Recorder`)."""

    def due(self, round_: int) -> bool:
        """Whether the round, which comes next, is to be committed."""

    def round(
        self,
        before: Checkpoint,
        after: Checkpoint,
        outputs: Mapping[int, TrialOutput],
        times: RoundTimes,
        *,
        commit: bool,
        last: bool,
    ) -> None: ...

    def finish(self) -> None:
        """Called after the last round; what was told is safe when it returns."""


def train_together(
    worker: LocalWorker,
    group: Communicator,
    checkpoint: Checkpoint,
    observer: Observer | None,
    *,
    until: int | None = None,
) -> Checkpoint:
    """Rounds from ``checkpoint``, the same at every worker, to the last (or to round ``until``); returns the last
    checkpoint.

    Raises `TroubleError` at all workers for an error of any, and what the group raises when it breaks.
    """
    worker.restart(checkpoint)
    trouble: NnjobsError | None = None
    while checkpoint.round != until and (epochs := epochs_left(worker.spec, checkpoint)):
        began, sent = time.perf_counter(), group.stats().sent
        told = {COMMIT: True} if observer is not None and observer.due(checkpoint.round + 1) else {}
        outputs, share = _round(worker, group, checkpoint, epochs, trouble, told)
        before, checkpoint = checkpoint, advance(worker.spec, checkpoint, outputs)
        last = not epochs_left(worker.spec, checkpoint)
        commit = share.commit or last
        if commit:
            checkpoint.residuals = gathered_residuals(worker, group, checkpoint)
        if observer is not None:
            times = RoundTimes(time.perf_counter() - began, share.waited, group.stats().sent - sent)
            try:
                observer.round(before, checkpoint, outputs, times, commit=commit, last=last)
                if last:
                    observer.finish()
            except NnjobsError as error:
                trouble = error
    # Nobody leaves before worker 0 has committed the end: until then all are needed, should one of them be lost.
    answers = group.exchange([[encoded(trouble_record(trouble))]] * group.workers)
    raise_trouble([json.loads(bytes(frames[0])) for frames in answers], worker.number)
    return checkpoint


def _round(
    worker: LocalWorker,
    group: Communicator,
    before: Checkpoint,
    epochs: range,
    trouble: NnjobsError | None,
    told: Record,
) -> tuple[dict[int, TrialOutput], Share]:
    """One round: what all workers give of every active trial."""
    spec = worker.spec
    active = before.active
    take = synchronous_round if spec.config.sync.every == "batch" else averaged_round
    share = take(worker, group, before, active, epochs, trouble, told)
    raise_trouble(share.records, worker.number)
    began = time.perf_counter()
    outputs = {}
    for index in active:
        output = TrialOutput(records={peer: record[str(index)] for peer, record in enumerate(share.records)})
        output.join_scores(spec)
        if output.diverged is None:
            output.average = share.averages[index]
        outputs[index] = output
    try:
        check_records(spec, outputs)
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
    told = group.exchange([[encoded({str(index): drift for index, drift in measured.items()})]] * group.workers)
    for peer, frames in enumerate(told):
        for index, drift in json.loads(bytes(frames[0])).items():
            outputs[int(index)].drift[peer] = drift
