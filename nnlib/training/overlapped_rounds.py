"""Overlapped averaging (`sync.overlap`): a round's contributions are averaged while the workers train the next round.

Let a_n be the model after n rounds, the same at all workers, and d_n a worker's own difference of round n (where it
ended less where it started). The worker contributes a_{n-1} + d_n, as it would without overlap, and starts round n + 1
from there: its own difference stands in for the mean one, which is still being computed. At the end of round n + 1 the
mean is there, the outer step makes a_n of it, and the worker contributes a_n + d_{n+1}. In other words, at the end of
every round

    w  <-  w + (average of the round before - own contribution to it),

the rule of CoCoD-SGD (Shen et al. 2019, "Faster distributed deep net training: computation and communication decoupled
stochastic gradient descent"). With an outer step it is kin to the eager updates of Kale et al. 2025 ("Eager updates for
overlapped communication and computation in DiLoCo"), while Wang et al. 2020 ("Overlap local-SGD") pull towards a late
average. In every `sync.overlap_drain`-th round, and in the last, all workers wait for the average and go on from a_n:
the round is drained. Nothing depends on how long an average takes: it counts at the end of the next round, never
earlier.

A round's record, its scores and its line of the ledger are those of a_n, as elsewhere; they are made as soon as a_n is
known. Between drained rounds a worker's state is more than a_n, so a run can only be resumed from a drained round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nnlib.collective.communicator import Communicator
from nnlib.core.arrays import Vector
from nnlib.core.errors import DivergedError, NnjobsError
from nnlib.core.layout import ModelState
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.round_length import drained_round, next_epochs
from nnlib.training.advance import advance, epochs_left
from nnlib.training.contribution import AveragedRound, Contribution, average_contributions
from nnlib.training.local_result import LocalResult
from nnlib.training.round_observer import RoundPublisher
from nnlib.training.round_outputs import collect_outputs
from nnlib.training.round_result import TrialOutput
from nnlib.training.worker import LocalWorker
from nnlib.training.worker_record import WorkerReport
from nnlib.training.worker_round import training_record

Outputs = dict[int, TrialOutput]


@dataclass(frozen=True)
class _PendingRound:
    """A round of these ``epochs`` whose average is being computed: this worker's contribution, and ``wait``, which
    waits for the average."""

    epochs: range
    contribution: Contribution
    wait: Callable[[], tuple[Outputs, AveragedRound]]


@dataclass(frozen=True)
class _TrainedTrial:
    """A trial's round on this worker: where it started, where it ended or why it did not, and its seconds."""

    start: ModelState
    end: LocalResult | DivergedError
    seconds: float


def train_overlapped_rounds(
    worker: LocalWorker, group: Communicator, checkpoint: Checkpoint, publisher: RoundPublisher, until: int | None
) -> Checkpoint:
    """Train from ``checkpoint``, a drained one, to the last round or to the drained round ``until``; return the last
    checkpoint."""
    spec = worker.spec
    pending: _PendingRound | None = None
    while checkpoint.round != until and (epochs := _next_epochs(worker, checkpoint, pending)):
        is_shifted = pending is not None
        trained = _train(worker, checkpoint, epochs, pending, publisher)
        if pending is not None:
            checkpoint = _finish_round(worker, checkpoint, pending, publisher)
            if not epochs_left(spec, checkpoint):
                break  # no trial goes on: the round that was trained meanwhile is discarded
        round_ = checkpoint.round + 1
        is_drained = drained_round(spec.config, round_) == round_
        report = publisher.begin_report(round_, may_commit=is_drained)
        contribution = _contribute(worker, checkpoint, trained, publisher, report, is_shifted=is_shifted)
        average = _averaging(worker, group, checkpoint, contribution)
        pending = _PendingRound(epochs, contribution, average if is_drained else group.run_in_background(average))
        if is_drained:
            checkpoint = _finish_round(worker, checkpoint, pending, publisher)
            pending = None
    return checkpoint


def _next_epochs(worker: LocalWorker, checkpoint: Checkpoint, pending: _PendingRound | None) -> range:
    if pending is None:
        return epochs_left(worker.spec, checkpoint)
    return next_epochs(worker.spec.config, pending.epochs, None)


def _train(
    worker: LocalWorker,
    checkpoint: Checkpoint,
    epochs: range,
    pending: _PendingRound | None,
    publisher: RoundPublisher,
) -> dict[int, _TrainedTrial]:
    """Train the trials that may go on. ``checkpoint``: the newest model that is known."""
    trained: dict[int, _TrainedTrial] = {}
    if publisher.error is not None:
        return trained
    round_ = checkpoint.round + (pending is not None)
    for index in checkpoint.active:
        start = worker.start_model(index, checkpoint.trials[index])
        if pending is not None:
            if pending.contribution.report.records[index].diverged is not None:
                continue  # all workers will know it with the average
            contribution = pending.contribution
            start = ModelState(contribution.partials[index].weights, contribution.buffers[index])
        began = time.perf_counter()
        end: LocalResult | DivergedError
        try:
            end = worker.train(index, start, round_, epochs)
        except DivergedError as error:
            end = error
        except NnjobsError as error:
            publisher.error = worker.locate(error)
            break
        trained[index] = _TrainedTrial(start, end, time.perf_counter() - began)
    return trained


def _contribute(
    worker: LocalWorker,
    checkpoint: Checkpoint,
    trained: dict[int, _TrainedTrial],
    publisher: RoundPublisher,
    report: WorkerReport,
    *,
    is_shifted: bool,
) -> Contribution:
    """Make this worker's contribution to the round after ``checkpoint``, whose models it scores.

    ``is_shifted``: the training did not start from these models, so its difference is added to them.
    """
    contribution = Contribution.empty(worker, checkpoint, report)
    for index in checkpoint.active if publisher.error is None else ():
        state, each = checkpoint.trials[index], trained[index]
        began = time.perf_counter()
        try:
            record = worker.score_round(index, state)
        except NnjobsError as error:
            publisher.error = worker.locate(error)
            return Contribution.empty(worker, checkpoint, WorkerReport(error=publisher.error))
        record = replace(record, seconds={"score": time.perf_counter() - began, "train": each.seconds})
        try:
            if isinstance(each.end, DivergedError):
                raise each.end
            weights = _shift(each.end, each.start.vector, state.weights) if is_shifted else each.end.partial.weights
            if not np.isfinite(weights).all():
                raise DivergedError("a weight is not finite", round=checkpoint.round, worker=worker.number)
        except DivergedError as error:
            record = replace(record, diverged=error)
        else:
            record = replace(record, training=training_record(each.end))
            contribution.add(worker, index, each.end, weights)
        contribution.report.records[index] = record
    return contribution


def _shift(end: LocalResult, start: Vector, model: Vector) -> Vector:
    """``model`` + (the end of the training - ``start``), in the model's dtype."""
    if end.delta is not None:
        return end.delta.restored(model)
    difference = end.partial.weights.astype(np.float64) - start.astype(np.float64)
    with np.errstate(over="ignore"):  # the caller checks for values that are not finite
        shifted: Vector = (model.astype(np.float64) + difference).astype(model.dtype)
    return shifted


def _averaging(
    worker: LocalWorker, group: Communicator, before: Checkpoint, contribution: Contribution
) -> Callable[[], tuple[Outputs, AveragedRound]]:
    """Work for `Communicator.run_in_background`: it touches nothing that the training touches."""
    return lambda: collect_outputs(worker, group, before, average_contributions(worker, group, before, contribution))


def _finish_round(
    worker: LocalWorker, before: Checkpoint, pending: _PendingRound, publisher: RoundPublisher
) -> Checkpoint:
    """Wait for a round's average, publish the round, and return the checkpoint that it leads to."""
    began = time.perf_counter()
    outputs, averaged = pending.wait()
    waited = time.perf_counter() - began
    after = advance(worker.spec, before, outputs)
    publisher.publish(before, after, outputs, averaged._replace(waited=waited))
    return after
