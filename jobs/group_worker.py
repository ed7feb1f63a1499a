"""One worker of a group that trains together: score, train, all-reduce, advance, round after round.

The station is the one of rounds mode (`jobs.tasks.local_round`, `jobs.advance.advance`); only the way of the partials
differs: they do not travel as lines through a reducer but in an all-reduce, all trials in the same one. Every worker
advances by itself, from the same records and averages, so all know the next round's models, who goes on and for how
many epochs, and nothing of that has to be sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jobs.advance import advance, epochs_left
from jobs.outputs import TrialOutput, check_records
from jobs.tasks import Vector, drift_rows, drift_summary, local_round, score_record, worker_data
from nnlib.averaging import Partial
from nnlib.checkpoint import Checkpoint, TrialState
from nnlib.collective.allreduce import all_reduce
from nnlib.collective.communicator import Communicator
from nnlib.data.worker_data import TrialData, WorkerData
from nnlib.errors import NnjobsError, from_record
from nnlib.plan import JobSpec, WorkerPlan
from nnlib.training import LocalResult, RoundStart, local_training, partial_layout

Record = dict[str, Any]


@dataclass(frozen=True)
class RoundTimes:
    """What a round cost this worker's process: its seconds, those spent in exchanges, the bytes it sent."""

    seconds: float
    exchange: float
    sent: int


class Observer(Protocol):
    """Who is told of every round (of worker 0: `jobs.group_record.Recorder`)."""

    def round(
        self,
        before: Checkpoint,
        after: Checkpoint,
        outputs: Mapping[int, TrialOutput],
        times: RoundTimes,
        *,
        last: bool,
    ) -> None: ...

    def finish(self) -> None:
        """Called after the last round; what was told is safe when it returns."""


class TroubleError(Exception):
    """An error of some worker, told to all of them. ``own``: whether it is this worker's."""

    def __init__(self, error: NnjobsError, own: bool) -> None:
        super().__init__(str(error))
        self.error, self.own = error, own


class LocalWorker:
    """A worker's rows and its running local training. The rows outlive the generations of its group."""

    def __init__(self, spec: JobSpec, plan: WorkerPlan) -> None:
        self.spec, self.plan, self.number = spec, plan, plan.worker
        self._data: WorkerData | None = None
        self._views: dict[int, TrialData] = {}
        self._training: dict[int, Generator[LocalResult, RoundStart, None]] = {}

    def __enter__(self) -> LocalWorker:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._data is not None:
            self._data.close()

    def restart(self) -> None:
        """Forget the running training: the next round starts from another model than the last one gave."""
        self._training.clear()

    def round(self, index: int, state: TrialState, round_: int, epochs: range) -> tuple[Record, LocalResult | None]:
        """`jobs.tasks.local_round` of a trial."""
        vector = self._vector(index, state)
        start = RoundStart(vector, round_, epochs)
        train: Callable[[], LocalResult]
        if index in self._training:
            running = self._training[index]

            def train() -> LocalResult:
                return running.send(start)
        else:
            fresh = local_training(self.spec, self.spec.trials[index], self.number, self._view(index), start)
            self._training[index], train = fresh, fresh.__next__
        return local_round(self.spec, self.spec.trials[index], self.number, self._view(index), vector, train)

    def scores(self, index: int, state: TrialState) -> Record:
        """The record of a trial's model on this worker's held-out rows."""
        return score_record(self.spec, self.spec.trials[index], self.number, self._view(index), state.weights)

    def nothing(self, index: int, state: TrialState) -> Partial:
        """A partial of no examples, of a trial that diverged here."""
        vector = self._vector(index, state)
        return Partial(self.number, 0, vector, partial_layout(self.spec, self.spec.trials[index]).fingerprint)

    def _vector(self, index: int, state: TrialState) -> Vector:
        """What a trial enters a round with: weights, then averaged optimizer state."""
        if partial_layout(self.spec, self.spec.trials[index]).size > state.weights.size:
            return np.concatenate([state.weights, state.optimizer])
        return state.weights

    def _view(self, index: int) -> TrialData:
        if self._data is None:
            self._data = worker_data(self.spec, self.plan)
        if index not in self._views:
            trial = self.spec.trials[index]
            self._views[index] = self._data.trial(trial.rule, trial.scaler, self.spec.settings(trial).model.dtype)
        return self._views[index]


def train_together(
    worker: LocalWorker, group: Communicator, checkpoint: Checkpoint, observer: Observer | None
) -> Checkpoint:
    """Rounds from ``checkpoint``, the same at every worker, to the last; returns the last checkpoint.

    Raises `TroubleError` at all workers for an error of any, and what the group raises when it breaks.
    """
    worker.restart()
    trouble: NnjobsError | None = None
    while epochs := epochs_left(worker.spec, checkpoint):
        began, sent = time.perf_counter(), group.stats().sent
        outputs, exchange = _round(worker, group, checkpoint, epochs, trouble)
        before, checkpoint = checkpoint, advance(worker.spec, checkpoint, outputs)
        if observer is not None:
            times = RoundTimes(time.perf_counter() - began, exchange, group.stats().sent - sent)
            last = not epochs_left(worker.spec, checkpoint)
            try:
                observer.round(before, checkpoint, outputs, times, last=last)
                if last:
                    observer.finish()
            except NnjobsError as error:
                trouble = error
    # Nobody leaves before worker 0 has committed the end: until then all are needed, should one of them be lost.
    told = group.exchange([[_encoded(_trouble(trouble))]] * group.workers)
    _raise_trouble([json.loads(bytes(frames[0])) for frames in told], worker.number)
    return checkpoint


def _round(
    worker: LocalWorker, group: Communicator, before: Checkpoint, epochs: range, trouble: NnjobsError | None
) -> tuple[dict[int, TrialOutput], float]:
    """One round: what all workers give of every active trial, and the seconds spent in exchanges."""
    spec = worker.spec
    active = [index for index, trial in enumerate(before.trials) if trial.status == "active"]
    records: dict[str, Any] = _trouble(trouble)
    partials = {index: worker.nothing(index, before.trials[index]) for index in active}
    for index in active if trouble is None else ():
        try:
            record, result = worker.round(index, before.trials[index], before.round, epochs)
        except NnjobsError as error:
            error.where.setdefault("worker", worker.number)
            records = _trouble(error)
            partials = {index: worker.nothing(index, before.trials[index]) for index in active}
            break
        records[str(index)] = record
        if result is not None:
            weight = result.rows if spec.settings(spec.trials[index]).sync.weighting == "examples" else 1
            partials[index] = Partial(worker.number, weight, result.partial.weights, result.partial.fingerprint)
    began = time.perf_counter()
    reduced = all_reduce(group, [partials[index] for index in active], record=_encoded(records))
    told = [json.loads(record) for record in reduced.records]
    _raise_trouble(told, worker.number)
    outputs = {}
    for place, index in enumerate(active):
        output = TrialOutput(records={peer: record[str(index)] for peer, record in enumerate(told)})
        output.join_scores(spec)
        if output.diverged is None:
            output.average = reduced.vectors[place]
        outputs[index] = output
    check_records(spec, outputs)
    _exchange_drift(worker, group, before, {index: partials[index].weights for index in active}, outputs)
    return outputs, time.perf_counter() - began


def _exchange_drift(
    worker: LocalWorker,
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
    told = group.exchange([[_encoded({str(index): drift for index, drift in measured.items()})]] * group.workers)
    for peer, frames in enumerate(told):
        for index, drift in json.loads(bytes(frames[0])).items():
            outputs[int(index)].drift[peer] = drift


def _encoded(record: Mapping[str, Any]) -> bytes:
    """Sorted, as `nnlib.wire.encode_record` sorts: a message made of a record names its facts in their order."""
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _trouble(error: NnjobsError | None) -> dict[str, Any]:
    return {} if error is None else {"error": error.to_record()}


def _raise_trouble(told: list[dict[str, Any]], own: int) -> None:
    """Raise the first worker's error, if any has one; each worker its own, so that no error is told twice."""
    troubled = [peer for peer, record in enumerate(told) if "error" in record]
    if troubled:
        raise TroubleError(from_record(told[troubled[0]]["error"]), troubled[0] == own)
