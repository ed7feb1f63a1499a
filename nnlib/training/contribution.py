"""What a worker contributes to a round's average, and what all workers get from it.

Training and averaging are apart: `nnlib.training.overlapped_rounds` averages the contributions to one round while the
next round trains.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nnlib.aggregation.average import Partial, Weighting
from nnlib.aggregation.delta import Delta, DeltaCodec
from nnlib.collective.allreduce import Operand, all_reduce
from nnlib.collective.communicator import Communicator
from nnlib.core.arrays import Buffer, Vector
from nnlib.core.errors import NnjobsError
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.spec import JobSpec
from nnlib.training.local_result import LocalResult
from nnlib.training.worker import LocalWorker
from nnlib.training.worker_record import WorkerReport


@dataclass(frozen=True)
class Contribution:
    """What a worker contributes to a round: its ``report`` and, by trial, the ``partials`` to average, the ``deltas``
    where `sync.precision` sends them instead of weights, and its model's ``buffers``."""

    report: WorkerReport
    partials: dict[int, Partial]
    deltas: dict[int, Delta | None]
    buffers: dict[int, tuple[Vector, ...]]

    @classmethod
    def empty(cls, worker: LocalWorker, before: Checkpoint, report: WorkerReport) -> Contribution:
        """Make a contribution of no examples for every trial that goes on after ``before``, see `add`."""
        partials = {index: worker.empty_partial(index, before.trials[index]) for index in before.active}
        buffers = {index: before.trials[index].buffers for index in before.active}
        return cls(replace(report, records=dict(report.records)), partials, {}, buffers)

    def add(self, worker: LocalWorker, index: int, result: LocalResult, weights: Vector) -> None:
        """Contribute the trial ``index``: ``weights``, shape (size of the partial's layout,), and what else ``result``
        has."""
        self.partials[index] = Partial(worker.number, result.rows, weights, result.partial.fingerprint)
        self.deltas[index] = result.delta
        self.buffers[index] = result.buffers


class AveragedRound(NamedTuple):
    """What a worker knows when a round is averaged: all workers' ``reports``; by trial the vector that this worker has
    ``contributed``, the ``averages`` and the combined ``buffers`` (both meaningless for trials that diverged); and the
    seconds it has ``waited`` for exchanges."""

    reports: list[WorkerReport]
    contributed: dict[int, Vector]
    averages: dict[int, Vector | None]
    buffers: dict[int, tuple[Vector, ...]]
    waited: float

    @property
    def is_commit_due(self) -> bool:
        """Whether worker 0 is to commit the round."""
        return self.reports[0].commit


class WorkerFailedError(Exception):
    """Raised at all workers alike when one of them has reported an ``error``. ``is_local``: this worker has."""

    def __init__(self, error: NnjobsError, is_local: bool) -> None:
        super().__init__(str(error))
        self.error, self.is_local = error, is_local


def average_contributions(
    worker: LocalWorker, group: Communicator, before: Checkpoint, contribution: Contribution
) -> AveragedRound:
    """Average all workers' contributions in one all-reduce, in which the workers also exchange their reports.

    ``before``: the checkpoint that the deltas differ from.
    """
    began = time.perf_counter()
    active = list(contribution.partials)
    codecs: list[DeltaCodec | None] = [None] * len(active)
    if (precision := worker.spec.config.sync.precision) != "exact":
        vectors = {index: worker.start_model(index, before.trials[index]).vector for index in active}
        codecs = [DeltaCodec(precision, vectors[index], contribution.deltas.get(index)) for index in active]
    operands = {
        index: [
            Operand(partial, _weighting(worker.spec, index), codec),
            *_buffer_operands(worker.spec, index, partial, contribution.buffers[index]),
        ]
        for (index, partial), codec in zip(contribution.partials.items(), codecs, strict=True)
    }
    results, reports = _reduce(group, operands, encode_message(contribution.report.to_json()))
    return AveragedRound(
        [decode_report(worker, report) for report in reports],
        {index: partial.weights for index, partial in contribution.partials.items()},
        {index: vectors[0] for index, vectors in results.items()},
        {index: _present(vectors[1:]) for index, vectors in results.items()},
        time.perf_counter() - began,
    )


def combine_buffers(
    worker: LocalWorker, group: Communicator, rows: Mapping[int, int], buffers: Mapping[int, tuple[Vector, ...]]
) -> dict[int, tuple[Vector, ...]]:
    """Combine the buffers of all trials over all workers, after a round of averaged gradients.

    ``rows``: this worker's training rows by trial; ``buffers``: its buffers by trial. Returns the combined ones by
    trial, {} where no trial has any.
    """
    operands = {}
    for index, vectors in buffers.items():
        if vectors:
            fingerprint = worker.spec.model(worker.spec.trials[index]).layout.fingerprint
            partial = Partial(worker.number, rows[index], vectors[0], fingerprint)
            operands[index] = _buffer_operands(worker.spec, index, partial, vectors)
    if not operands:
        return {}
    return {index: _present(vectors) for index, vectors in _reduce(group, operands)[0].items()}


def exchange_reports(worker: LocalWorker, group: Communicator, report: WorkerReport) -> list[WorkerReport]:
    """Send this worker's report to all workers and return the reports of all, in worker order."""
    answers = group.exchange([[encode_message(report.to_json())]] * group.workers)
    return [decode_report(worker, frames[0]) for frames in answers]


def encode_message(data: Mapping[str, Any]) -> bytes:
    """Encode JSON-able data canonically: an error message that is made from it lists its keys in their order."""
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def decode_report(worker: LocalWorker, frame: Buffer) -> WorkerReport:
    """Decode the report of any worker."""
    dataset = worker.spec.dataset
    return WorkerReport.from_json(json.loads(bytes(frame)), dataset.task, len(dataset.classes))


def raise_worker_error(reports: Sequence[WorkerReport], worker: int) -> None:
    """Raise `WorkerFailedError` for the first worker whose report has an error.

    ``worker``: this worker's number. Only the worker that has failed sends the error to the driver.
    """
    for peer, report in enumerate(reports):
        if report.error is not None:
            raise WorkerFailedError(report.error, peer == worker)


def _reduce(
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
