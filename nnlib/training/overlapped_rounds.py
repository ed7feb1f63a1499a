"""Overlapped averaging (`sync.overlap`): what workers gave in a round is averaged while they train the next one.

With a_n for the model after n rounds, the same at all workers, and d_n for a worker's own difference of round n (what
it reached less what it started from), the worker gives a_{n-1} + d_n, as it would without overlap, and starts round
n + 1 from that: its own difference stands in for the mean one, which is on its way. At the end of round n + 1 the mean
is there, the outer step makes a_n of it, and the worker gives a_n + d_{n+1}. In other words, at the end of every round

    w  <-  w + (average of the round before - own contribution to it),

the rule of CoCoD-SGD (Shen et al. 2019, "Faster distributed deep net training: computation and communication decoupled
stochastic gradient descent"); with an outer step it is kin to the eager updates of Kale et al. 2025 ("Eager updates for
overlapped communication and computation in DiLoCo"), while Wang et al. 2020 ("Overlap local-SGD") pull towards a late
average. Every so many rounds, and in the last, the average is waited for: the round is drained, and all go on
from a_n. Nothing depends on how long an average takes: it counts at the end of the next round, never earlier.

A round's record, its scores and its line of the ledger are those of a_n, as elsewhere; they are made as soon as it is
known. Between drains a worker has more than a_n, so only drained rounds can be gone on from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nnlib.collective.communicator import Communicator
from nnlib.core.arrays import Vector
from nnlib.core.errors import DivergedError, NnjobsError
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.round_length import drained_round, next_epochs
from nnlib.training.advance import advance, epochs_left
from nnlib.training.allreduce_round import Given, Share, averaged, give, nothing_given
from nnlib.training.local_result import LocalResult
from nnlib.training.round_observer import Told, outputs_of
from nnlib.training.round_result import TrialOutput
from nnlib.training.worker import LocalWorker
from nnlib.training.worker_record import WorkerReport
from nnlib.training.worker_round import training_record

Outputs = dict[int, TrialOutput]


@dataclass(frozen=True)
class _OnItsWay:
    """A round that is being averaged: of these ``epochs``; what this worker gave, and what waits for the average."""

    epochs: range
    given: Given
    wait: Callable[[], tuple[Outputs, Share]]


@dataclass(frozen=True)
class _Trained:
    """A trial's round on this worker: where it started, and where it ended or why it did not; the seconds it took."""

    start: Vector
    end: LocalResult | DivergedError
    seconds: float


def overlapped_rounds(
    worker: LocalWorker, group: Communicator, checkpoint: Checkpoint, told: Told, until: int | None
) -> Checkpoint:
    """Rounds from ``checkpoint``, a drained one, to the last (or to the drained round ``until``); returns the last
    checkpoint."""
    spec = worker.spec
    under_way: _OnItsWay | None = None
    while checkpoint.round != until and (epochs := _next_epochs(worker, checkpoint, under_way)):
        moved = under_way is not None
        trained = _train(worker, checkpoint, epochs, under_way, told)
        if under_way is not None:
            checkpoint = _arrived(worker, checkpoint, under_way, told)
            if not epochs_left(spec, checkpoint):
                break  # no trial goes on: the round that was trained meanwhile is for nothing
        round_ = checkpoint.round + 1
        drained = drained_round(spec.config, round_) == round_
        given = _given(worker, checkpoint, trained, told, may_commit=drained, moved=moved)
        average = _averaging(worker, group, checkpoint, given)
        under_way = _OnItsWay(epochs, given, average if drained else group.run_in_background(average))
        if drained:
            checkpoint = _arrived(worker, checkpoint, under_way, told)
            under_way = None
    return checkpoint


def _next_epochs(worker: LocalWorker, checkpoint: Checkpoint, under_way: _OnItsWay | None) -> range:
    if under_way is None:
        return epochs_left(worker.spec, checkpoint)
    return next_epochs(worker.spec.config, under_way.epochs, None)


def _train(
    worker: LocalWorker, checkpoint: Checkpoint, epochs: range, under_way: _OnItsWay | None, told: Told
) -> dict[int, _Trained]:
    """Train the trials that may go on: ``checkpoint`` is the newest model that is known."""
    trained: dict[int, _Trained] = {}
    if told.trouble is not None:
        return trained
    round_ = checkpoint.round + (under_way is not None)
    for index in checkpoint.active:
        start = worker.start_vector(index, checkpoint.trials[index])
        if under_way is not None:
            if under_way.given.report.records[index].diverged is not None:
                continue  # as will be known to all
            start = under_way.given.partials[index].weights
        began = time.perf_counter()
        end: LocalResult | DivergedError
        try:
            end = worker.train(index, start, round_, epochs)
        except DivergedError as error:
            end = error
        except NnjobsError as error:
            told.trouble = worker.locate(error)
            break
        trained[index] = _Trained(start, end, time.perf_counter() - began)
    return trained


def _given(
    worker: LocalWorker,
    checkpoint: Checkpoint,
    trained: dict[int, _Trained],
    told: Told,
    *,
    may_commit: bool,
    moved: bool,
) -> Given:
    """What this worker gives of the round that follows ``checkpoint``, whose models it scores. ``moved``: the round was
    not started from them."""
    active = checkpoint.active
    given = nothing_given(worker, checkpoint, active, told.report(checkpoint.round + 1, may_commit=may_commit))
    for index in active if told.trouble is None else ():
        state, each = checkpoint.trials[index], trained[index]
        began = time.perf_counter()
        try:
            record = worker.score(index, state)
        except NnjobsError as error:
            told.trouble = worker.locate(error)
            return nothing_given(worker, checkpoint, active, WorkerReport(error=told.trouble))
        record = replace(record, seconds={"score": time.perf_counter() - began, "train": each.seconds})
        try:
            if isinstance(each.end, DivergedError):
                raise each.end
            weights = each.end.partial.weights
            if moved:
                weights = _moved(each.end, each.start, state.weights)
            if not np.isfinite(weights).all():
                raise DivergedError("a weight is not finite", round=checkpoint.round, worker=worker.number)
        except DivergedError as error:
            record = replace(record, diverged=error)
        else:
            record = replace(record, training=training_record(each.end))
            give(worker, given, index, each.end, weights)
        given.report.records[index] = record
    return given


def _moved(end: LocalResult, start: Vector, model: Vector) -> Vector:
    """``model`` + (what was reached - ``start``), in the model's dtype."""
    if end.delta is not None:
        return end.delta.restored(model)
    difference = end.partial.weights.astype(np.float64) - start.astype(np.float64)
    with np.errstate(over="ignore"):  # what is not finite is looked for
        moved: Vector = (model.astype(np.float64) + difference).astype(model.dtype)
    return moved


def _averaging(
    worker: LocalWorker, group: Communicator, before: Checkpoint, given: Given
) -> Callable[[], tuple[Outputs, Share]]:
    """Work for `Communicator.beside`: touches nothing that training does."""
    return lambda: outputs_of(worker, group, before, averaged(worker, group, before, given))


def _arrived(worker: LocalWorker, before: Checkpoint, under_way: _OnItsWay, told: Told) -> Checkpoint:
    """Wait for a round's average: the checkpoint that it leads to."""
    began = time.perf_counter()
    outputs, share = under_way.wait()
    waited = time.perf_counter() - began
    after = advance(worker.spec, before, outputs)
    told.round(before, after, outputs, share._replace(waited=waited))
    return after
