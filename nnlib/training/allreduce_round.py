"""One round of a group: train, then average the weights, or average the gradients at every step."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace

from nnlib.aggregation.average import Partial
from nnlib.collective.allreduce import Operand, all_reduce
from nnlib.collective.communicator import Communicator
from nnlib.core.arrays import Vector
from nnlib.core.errors import DivergedError, NnjobsError
from nnlib.run.checkpoint import Checkpoint
from nnlib.training.contribution import (
    AveragedRound,
    Contribution,
    average_contributions,
    combine_buffers,
    exchange_reports,
)
from nnlib.training.local_result import LocalResult
from nnlib.training.synchronous_sgd import no_gradient, steps_of_epoch, training_by_steps
from nnlib.training.worker import LocalWorker
from nnlib.training.worker_record import WorkerRecord, WorkerReport
from nnlib.training.worker_round import training_record


def average_weights(
    worker: LocalWorker, group: Communicator, before: Checkpoint, epochs: range, report: WorkerReport
) -> AveragedRound:
    """Train every active trial for ``epochs``, then average the weights of all trials in one all-reduce.

    ``report``: what this worker sends to the others in any case. After an error, in the report or in the training, it
    contributes no weights.
    """
    contribution = Contribution.empty(worker, before, report)
    for index in before.active if report.error is None else ():
        try:
            record, result = worker.run_round(index, before.trials[index], before.round, epochs)
        except NnjobsError as error:
            contribution = Contribution.empty(worker, before, WorkerReport(error=worker.locate(error)))
            break
        contribution.report.records[index] = record
        if result is not None:
            contribution.add(worker, index, result, result.partial.weights)
    return average_contributions(worker, group, before, contribution)


def average_gradients(
    worker: LocalWorker, group: Communicator, before: Checkpoint, epochs: range, report: WorkerReport
) -> AveragedRound:
    """Train every active trial for ``epochs``, averaging the gradients of all trials in one all-reduce a step; then
    exchange the reports. All workers end with the same weights. ``report``: as in `average_weights`."""
    spec, active = worker.spec, before.active
    report = replace(report, records=dict(report.records))
    steps = {index: steps_of_epoch(spec, spec.trials[index]) * len(epochs) for index in active}
    trials = {index: _GradientSteps(worker, index, before, epochs) for index in active} if report.error is None else {}
    waited = 0.0
    for step in range(max(steps.values())):
        gradients = {}
        for index in active:
            if step < steps[index]:
                gradients[index] = no_gradient(spec, spec.trials[index], worker.number)
                if report.error is None:
                    try:
                        gradients[index] = trials[index].compute_gradient()
                    except NnjobsError as error:
                        report = WorkerReport(error=worker.locate(error))
        began = time.perf_counter()
        reduced = all_reduce(group, [Operand(gradient) for gradient in gradients.values()])
        waited += time.perf_counter() - began
        for index, mean in zip(gradients, reduced.vectors, strict=True):
            if report.error is None:
                trials[index].mean = mean
    weights = {index: worker.start_model(index, before.trials[index]).vector for index in active}
    rows = dict.fromkeys(active, 0)
    buffers = {index: before.trials[index].buffers for index in active}
    for index in active if report.error is None else ():
        report.records[index], result = trials[index].finish()
        if result is not None:
            weights[index] = result.partial.weights
            rows[index], buffers[index] = result.rows, result.buffers
    began = time.perf_counter()
    combined = combine_buffers(worker, group, rows, buffers)
    reports = exchange_reports(worker, group, report)
    return AveragedRound(reports, weights, dict(weights), combined, waited + time.perf_counter() - began)


class _GradientSteps:
    """The steps of a trial in one round on this worker; the round's incoming model is scored before the first."""

    def __init__(self, worker: LocalWorker, index: int, before: Checkpoint, epochs: range) -> None:
        self._worker, self._index = worker, index
        self._state = before.trials[index]
        model = worker.start_model(index, self._state)
        self._start = worker.round_start(index, model, before.round, epochs)
        self._training: Generator[Partial, Vector | None, LocalResult] | None = None
        self._record: WorkerRecord | None = None
        self._seconds = {"score": 0.0, "train": 0.0}
        self.mean: Vector | None = None
        """The gradient of the last step, averaged over all workers."""

    def compute_gradient(self) -> Partial:
        """Take the last step with `mean` and compute this worker's gradient of the next one."""
        began = time.perf_counter()
        if self._training is None:
            self._record = self._worker.score_round(self._index, self._state)
            self._seconds["score"] = time.perf_counter() - began
            self._training = training_by_steps(self._worker.trial(self._index), self._start)
            began = time.perf_counter()
            gradient = next(self._training)
        else:
            gradient = self._training.send(self.mean)
        self._seconds["train"] += time.perf_counter() - began
        return gradient

    def finish(self) -> tuple[WorkerRecord, LocalResult | None]:
        """Take the last step; return what `nnlib.training.worker_round.local_round` returns."""
        assert self._training is not None and self._record is not None
        record = replace(self._record, seconds=self._seconds)
        try:
            self._training.send(self.mean)
        except StopIteration as end:
            result: LocalResult = end.value
            self._worker.keep(self._index, result)
            return replace(record, training=training_record(result)), result
        except DivergedError as error:
            return replace(record, diverged=error), None
        raise AssertionError("a step more than planned")
