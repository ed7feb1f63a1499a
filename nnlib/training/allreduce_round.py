"""The ways of a group to train a round together: average the weights after it, or the gradients at every step.

Giving weights and averaging them are apart: `nnlib.training.overlapped_rounds` averages those of a round while the next
one trains."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from nnlib.aggregation.average import Partial, Weighting
from nnlib.aggregation.delta import Delta, DeltaCodec
from nnlib.collective.allreduce import Operand, all_reduce
from nnlib.collective.communicator import Communicator
from nnlib.core.arrays import Buffer, Vector
from nnlib.core.errors import DivergedError, NnjobsError
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.spec import JobSpec
from nnlib.training.local_result import LocalResult, RoundStart
from nnlib.training.synchronous_sgd import no_gradient, steps_of_epoch, training_by_steps
from nnlib.training.worker import LocalWorker
from nnlib.training.worker_record import WorkerRecord, WorkerReport
from nnlib.training.worker_round import training_record


class Given(NamedTuple):
    """What a worker sends of a round: its ``report``, and by trial its weights, as ``deltas`` where they travel so, and
    its model's buffers."""

    report: WorkerReport
    partials: dict[int, Partial]
    deltas: dict[int, Delta | None]
    buffers: dict[int, tuple[Vector, ...]]


class Share(NamedTuple):
    """What a worker knows when a round is trained: all workers' ``reports``, by trial its ``own`` vector and the
    ``averages`` and combined ``buffers`` (those of trials that diverged mean nothing), and the seconds it spent in
    exchanges."""

    reports: list[WorkerReport]
    own: dict[int, Vector]
    averages: dict[int, Vector | None]
    buffers: dict[int, tuple[Vector, ...]]
    waited: float

    @property
    def commit(self) -> bool:
        """Whether worker 0 is to commit the round."""
        return self.reports[0].commit


class TroubleError(Exception):
    """An error of some worker, told to all of them. ``own``: whether it is this worker's."""

    def __init__(self, error: NnjobsError, own: bool) -> None:
        super().__init__(str(error))
        self.error, self.own = error, own


def averaged_round(
    worker: LocalWorker,
    group: Communicator,
    before: Checkpoint,
    active: Sequence[int],
    epochs: range,
    report: WorkerReport,
) -> Share:
    """Train every trial, then average the weights of all in one all-reduce. ``report``: what this worker reports in any
    case. After an error, in the report or on the way, it contributes no weights."""
    given = nothing_given(worker, before, active, report)
    for index in active if report.error is None else ():
        try:
            record, result = worker.run_round(index, before.trials[index], before.round, epochs)
        except NnjobsError as error:
            given = nothing_given(worker, before, active, WorkerReport(error=worker.locate(error)))
            break
        given.report.records[index] = record
        if result is not None:
            give(worker, given, index, result, result.partial.weights)
    return averaged(worker, group, before, given)


def nothing_given(worker: LocalWorker, before: Checkpoint, active: Sequence[int], report: WorkerReport) -> Given:
    """Of no examples, until something is given (`give`)."""
    return Given(
        replace(report, records=dict(report.records)),
        {index: worker.empty_partial(index, before.trials[index]) for index in active},
        {},
        {index: before.trials[index].buffers for index in active},
    )


def give(worker: LocalWorker, given: Given, index: int, result: LocalResult, weights: Vector) -> None:
    """Give a trial's weights and buffers."""
    given.partials[index] = Partial(worker.number, result.rows, weights, result.partial.fingerprint)
    given.deltas[index] = result.delta
    given.buffers[index] = result.buffers


def averaged(worker: LocalWorker, group: Communicator, before: Checkpoint, given: Given) -> Share:
    """All workers' weights averaged in one all-reduce. ``before``: what deltas differ from."""
    began = time.perf_counter()
    active = list(given.partials)
    codecs: list[DeltaCodec | None] = [None] * len(active)
    if (precision := worker.spec.config.sync.precision) != "exact":
        vectors = {index: worker.start_vector(index, before.trials[index]) for index in active}
        codecs = [DeltaCodec(precision, vectors[index], given.deltas.get(index)) for index in active]
    operands = {
        index: [
            Operand(partial, _weighting(worker.spec, index), codec),
            *_buffer_operands(worker.spec, index, partial, given.buffers[index]),
        ]
        for (index, partial), codec in zip(given.partials.items(), codecs, strict=True)
    }
    results, records = _reduced(group, operands, encoded(given.report.to_json()))
    return Share(
        [decoded_report(worker, record) for record in records],
        {index: partial.weights for index, partial in given.partials.items()},
        {index: vectors[0] for index, vectors in results.items()},
        {index: _present(vectors[1:]) for index, vectors in results.items()},
        time.perf_counter() - began,
    )


def _reduced(
    group: Communicator, operands: Mapping[int, Sequence[Operand]], record: bytes = b""
) -> tuple[dict[int, list[Vector | None]], list[bytes]]:
    """All-reduce every trial's operands at once: the results by trial, and all workers' records."""
    reduced = all_reduce(group, [operand for each in operands.values() for operand in each], record=record)
    vectors = iter(reduced.vectors)
    return {index: [next(vectors) for _ in each] for index, each in operands.items()}, reduced.records


def _present(vectors: Sequence[Vector | None]) -> tuple[Vector, ...]:
    """The vectors, or () where no worker had any examples."""
    return tuple(vector for vector in vectors if vector is not None)


def _weighting(spec: JobSpec, index: int) -> Weighting:
    return spec.settings(spec.trials[index]).sync.weighting


def _buffer_operands(spec: JobSpec, index: int, partial: Partial, buffers: Sequence[Vector]) -> list[Operand]:
    """A trial's buffers as operands, which count as much as its ``partial``."""
    if not buffers:
        return []
    segments = spec.model(spec.trials[index]).layout.buffers
    return [
        Operand(replace(partial, weights=vector), _weighting(spec, index), segment=segment)
        for segment, vector in zip(segments, buffers, strict=True)
    ]


def synchronous_round(
    worker: LocalWorker,
    group: Communicator,
    before: Checkpoint,
    active: Sequence[int],
    epochs: range,
    report: WorkerReport,
) -> Share:
    """Average the gradients of all trials, one all-reduce a step: in the end all workers have the same weights."""
    spec = worker.spec
    report = replace(report, records=dict(report.records))
    steps = {index: steps_of_epoch(spec, spec.trials[index]) * len(epochs) for index in active}
    trials = {index: _Steps(worker, index, before, epochs) for index in active} if report.error is None else {}
    waited = 0.0
    for step in range(max(steps.values())):
        given = {}
        for index in active:
            if step < steps[index]:
                trial = spec.trials[index]
                given[index] = no_gradient(spec, trial, worker.number)
                if report.error is None:
                    try:
                        given[index] = trials[index].gradient()
                    except NnjobsError as error:
                        report = WorkerReport(error=worker.locate(error))
        began = time.perf_counter()
        reduced = all_reduce(group, [Operand(partial) for partial in given.values()])
        waited += time.perf_counter() - began
        for index, mean in zip(given, reduced.vectors, strict=True):
            if report.error is None:
                trials[index].mean = mean
    own = {index: worker.start_vector(index, before.trials[index]) for index in active}
    rows = dict.fromkeys(active, 0)
    buffers = {index: before.trials[index].buffers for index in active}
    for index in active if report.error is None else ():
        report.records[index], result = trials[index].finish()
        if result is not None:
            own[index] = result.partial.weights
            rows[index], buffers[index] = result.rows, result.buffers
    began = time.perf_counter()
    combined = _average_buffers(worker, group, rows, buffers)
    answers = group.exchange([[encoded(report.to_json())]] * group.workers)
    return Share(
        [decoded_report(worker, frames[0]) for frames in answers],
        own,
        dict(own),
        combined,
        waited + time.perf_counter() - began,
    )


def _average_buffers(
    worker: LocalWorker, group: Communicator, rows: Mapping[int, int], buffers: Mapping[int, tuple[Vector, ...]]
) -> dict[int, tuple[Vector, ...]]:
    """Combine the buffers of all trials after a round of averaged gradients, in which every worker has its own."""
    operands = {}
    for index, vectors in buffers.items():
        if vectors:
            fingerprint = worker.spec.model(worker.spec.trials[index]).layout.fingerprint
            partial = Partial(worker.number, rows[index], vectors[0], fingerprint)
            operands[index] = _buffer_operands(worker.spec, index, partial, vectors)
    if not operands:
        return {}
    return {index: _present(vectors) for index, vectors in _reduced(group, operands)[0].items()}


def gathered_residuals(worker: LocalWorker, group: Communicator, after: Checkpoint) -> dict[int, Vector]:
    """`Checkpoint.residuals` of the trials that go on, at worker 0; the others send theirs and get {}."""
    own = [worker.residuals[index] for index in after.active if worker.residuals]
    if not own:
        return {}
    if group.worker != 0:
        group.send(0, own)
        return {}
    rows = {0: own}
    while expected := set(range(group.workers)) - set(rows):
        peer, frames = group.receive(expected)
        rows[peer] = [np.frombuffer(frame, mine.dtype) for frame, mine in zip(frames, own, strict=True)]
    ordered = [rows[peer] for peer in range(group.workers)]
    return {index: np.stack(each) for index, each in zip(after.active, zip(*ordered, strict=True), strict=True)}


class _Steps:
    """A trial's steps in one round on this worker. The model that the round starts from is scored before the first."""

    def __init__(self, worker: LocalWorker, index: int, before: Checkpoint, epochs: range) -> None:
        self._worker, self._index = worker, index
        self._state = before.trials[index]
        self._start = RoundStart(worker.start_vector(index, self._state), before.round, epochs)
        self._training: Generator[Partial, Vector | None, LocalResult] | None = None
        self._record: WorkerRecord | None = None
        self._seconds = {"score": 0.0, "train": 0.0}
        self.mean: Vector | None = None
        """Of the last step, over all workers."""

    def gradient(self) -> Partial:
        """This worker's part of the next step."""
        began = time.perf_counter()
        if self._training is None:
            self._record = self._worker.score(self._index, self._state)
            self._seconds["score"] = time.perf_counter() - began
            self._training = training_by_steps(self._worker.trial(self._index), self._start)
            began = time.perf_counter()
            given = next(self._training)
        else:
            given = self._training.send(self.mean)
        self._seconds["train"] += time.perf_counter() - began
        return given

    def finish(self) -> tuple[WorkerRecord, LocalResult | None]:
        """After the last step: as `nnlib.training.worker_round.local_round`."""
        assert self._training is not None and self._record is not None
        record = replace(self._record, seconds=self._seconds)
        try:
            self._training.send(self.mean)
        except StopIteration as end:
            result: LocalResult = end.value
            return replace(record, training=training_record(result)), result
        except DivergedError as error:
            return replace(record, diverged=error), None
        raise AssertionError("a step more than planned")


def encoded(data: dict[str, Any]) -> bytes:
    """Encode a report as canonical JSON: a message that is made of it names its facts in their order."""
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def decoded_report(worker: LocalWorker, frame: Buffer) -> WorkerReport:
    """Decode a report of any worker."""
    dataset = worker.spec.dataset
    return WorkerReport.from_json(json.loads(bytes(frame)), dataset.task, len(dataset.classes))


def raise_trouble(reports: Sequence[WorkerReport], own: int) -> None:
    """Raise the error of the first worker that reports one. ``own`` is this worker's number: of an error only the
    worker that met it makes a line for the driver."""
    for peer, report in enumerate(reports):
        if report.error is not None:
            raise TroubleError(report.error, peer == own)
