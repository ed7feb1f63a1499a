"""Synchronous data-parallel SGD: the workers average gradients at every step, not weights after every round.

Zinkevich et al. 2010 average weights once at the end, Chen et al. 2016 ("Revisiting distributed synchronous SGD")
gradients at every step. All workers hold the same weights and take the same steps on the mean gradient of their
batches, weighted by rows: what one worker would do on the batches joined, up to rounding. A worker whose rows are used
up sends a gradient of no rows until the epoch of the largest worker ends.
"""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np

from nnlib.aggregation.average import Partial
from nnlib.core.arrays import Vector
from nnlib.core.errors import DivergedError
from nnlib.core.liveness import heartbeat, report_activity
from nnlib.data.sampling import sample_size
from nnlib.optim.schedules import learning_rate
from nnlib.run.spec import JobSpec, Trial
from nnlib.training.learner import gradient_learner
from nnlib.training.local_result import LocalResult, RoundStart, local_result
from nnlib.training.worker_trial import WorkerTrial


def steps_of_epoch(spec: JobSpec, trial: Trial) -> int:
    """Count the steps that every worker takes an epoch: as many as the one with the most rows has batches."""
    config = spec.settings(trial)
    rows = max(sample_size(rows, config.sampling.fraction) for rows in trial.train_rows)
    return -(-rows // config.train.batch_size)


def no_gradient(spec: JobSpec, trial: Trial, worker: int) -> Partial:
    """Make the gradient of no rows, for a step in which a worker has none."""
    layout = spec.model(trial).layout
    return Partial(worker, 0, np.zeros(layout.size, layout.dtype), layout.fingerprint)


def training_by_steps(work: WorkerTrial, start: RoundStart) -> Generator[Partial, Vector | None, LocalResult]:
    """Train a round: yields this worker's gradient of every step, shape (model.layout.size,), and is sent the mean of
    all workers' (None if none has one). Returns the result, whose weights are the same at every worker.

    The yielded buffer is used again. Raises `DivergedError`, in the end and not before, if a loss or a gradient was not
    finite: the others count on this worker's steps.
    """
    work.check_rows()
    learner = gradient_learner(work.learner)
    report_activity(phase="train", trial=work.trial.index, round=start.round, epoch=start.epochs.start)
    rows = work.draw_batches(start.epochs.start)
    learner.load(start.loaded)
    nothing = no_gradient(work.spec, work.trial, work.worker)
    steps = steps_of_epoch(work.spec, work.trial)
    failure: DivergedError | None = None
    losses = []
    for epoch in start.epochs:
        batches = rows.epoch(epoch)
        total = 0.0
        for step in range(steps):
            batch = None if failure is not None else next(batches, None)
            partial = nothing
            if batch is not None:
                loss, gradient = learner.gradient(batch, epoch, step)
                total += loss * len(batch.y)
                if math.isfinite(loss) and np.isfinite(gradient).all():
                    partial = Partial(work.worker, len(batch.y), gradient, nothing.fingerprint)
                else:
                    failure = DivergedError(
                        f"the training loss is {loss}, or its gradient is not finite",
                        round=start.round,
                        epoch=epoch,
                        worker=work.worker,
                    )
            mean = yield partial
            if mean is not None:
                learner.apply(mean, learning_rate(work.config.train, epoch, step, steps))
            heartbeat()
        losses.append(total / rows.rows)
        report_activity(epoch=epoch, loss=losses[-1])
    if failure is not None:
        raise failure
    return local_result(work, start, rows.rows, losses)
