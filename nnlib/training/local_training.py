"""Local training on one worker: a generator that yields a partial and receives the next model.

Rounds mode takes one step of it in each MapReduce job; a long-lived job drives it to the end. All it needs from outside
are the rows and what a round starts from: nothing is remembered that a fresh process could not recompute, so a retried
task gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Generator

from nnlib.core.errors import DivergedError
from nnlib.core.liveness import report_activity
from nnlib.training.local_result import LocalResult, RoundStart, local_result
from nnlib.training.worker_trial import WorkerTrial


def local_training(work: WorkerTrial, start: RoundStart) -> Generator[LocalResult, RoundStart, None]:
    """Train round after round: yield this worker's `LocalResult`, receive what the next round starts from, until
    that has no epochs.

    Raises `DivergedError` naming round, epoch and worker when a loss or a weight is not finite, and `MismatchError` if
    the worker's rows are not those of the plan.
    """
    work.check_rows()
    learner = work.learner
    while start.epochs:
        report_activity(phase="train", trial=work.trial.index, round=start.round, epoch=start.epochs.start)
        batches = work.draw_batches(start.epochs.start)
        learner.load(start.loaded)
        losses, evaluations = [], 0
        if learner.trains_whole_rounds:
            loss, evaluations = learner.train(batches, start.epochs)
            losses = [loss]
        else:
            for epoch in start.epochs:
                loss, _ = learner.train(batches, range(epoch, epoch + 1))
                if not math.isfinite(loss):
                    raise DivergedError(
                        f"the training loss is {loss}", round=start.round, epoch=epoch, worker=work.worker
                    )
                losses.append(loss)
                report_activity(epoch=epoch, loss=loss)
        start = yield local_result(work, start, batches.rows, losses, evaluations)
