"""Synchronous data-parallel SGD: the workers average gradients at every step, not weights after every round.

Zinkevich et al. 2010 average weights once at the end, Chen et al. 2016 ("Revisiting distributed synchronous SGD")
gradients at every step. All workers hold the same weights and take the same steps on the mean gradient of their
batches, weighted by rows: what one worker would do on the batches joined, up to rounding. A worker whose rows are used
up gives a gradient of no rows until the epoch of the largest worker ends.
"""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np

from nnlib.aggregation.average import Partial
from nnlib.core.arrays import Vector
from nnlib.core.errors import DivergedError
from nnlib.core.liveness import beat, say
from nnlib.data.batches import Batch
from nnlib.data.sampling import sample_size
from nnlib.data.worker_data import TrialData
from nnlib.optim.schedules import learning_rate
from nnlib.run.spec import JobSpec, Trial
from nnlib.training.learner import LocalResult, RoundStart
from nnlib.training.local_training import LocalModel


def steps_of_epoch(spec: JobSpec, trial: Trial) -> int:
    """Steps that every worker takes an epoch: as many as the one with the most rows has batches."""
    config = spec.settings(trial)
    rows = max(sample_size(rows, config.sampling.fraction) for rows in trial.train_rows)
    return -(-rows // config.train.batch_size)


def no_gradient(spec: JobSpec, trial: Trial, worker: int) -> Partial:
    """What a worker gives that has nothing to give in a step."""
    layout = spec.model(trial).layout
    return Partial(worker, 0, np.zeros(layout.size, layout.dtype), layout.fingerprint)


def training_by_steps(
    spec: JobSpec, trial: Trial, worker: int, data: TrialData, start: RoundStart
) -> Generator[Partial, Vector | None, LocalResult]:
    """Train a round: yields this worker's gradient of every step, shape (model.layout.size,), and is sent the mean of
    all workers' (None if none has one). Returns the result, whose weights are the same at every worker.

    The yielded buffer is used again. Raises `DivergedError`, in the end and not before, if a loss or a gradient was not
    finite: the others count on this worker's steps.
    """
    local = LocalModel(spec, trial, worker, data)
    assert local.optimizer.kind == "step"
    sample = local.begin(start)
    nothing = no_gradient(spec, trial, worker)
    steps = steps_of_epoch(spec, trial)
    failure: DivergedError | None = None
    losses = []
    for epoch in start.epochs:
        rate = learning_rate(local.config.train, epoch)
        batches = local.batches(sample, epoch)
        total = 0.0
        for _ in range(steps):
            batch = None if failure is not None else next(batches, None)
            given = nothing
            if batch is not None:
                loss = _gradient(local, batch)
                total += loss * len(batch.y)
                if math.isfinite(loss) and np.isfinite(local.gradient).all():
                    given = Partial(worker, len(batch.y), local.gradient, nothing.fingerprint)
                else:
                    failure = DivergedError(
                        f"the training loss is {loss}, or its gradient is not finite",
                        round=start.round,
                        epoch=epoch,
                        worker=worker,
                    )
            mean = yield given
            if mean is not None:
                local.gradient[:] = mean
                with np.errstate(all="ignore"):
                    local.optimizer.step(local.flat, local.gradient, rate, local.decay)
            beat()
        losses.append(total / sample.rows)
        say(epoch=epoch, loss=losses[-1])
    if failure is not None:
        raise failure
    return local.result(start, sample, losses)


def _gradient(local: LocalModel, batch: Batch) -> float:
    weights = None if local.class_weights is None else local.class_weights[batch.y]
    with np.errstate(all="ignore"):  # divergence is found by looking at the numbers
        return float(local.bound.loss_and_gradient(batch.x, batch.y, weights))
