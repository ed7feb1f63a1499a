"""One worker of a group that trains together: train, all-reduce and advance, round after round.

A round does what it does in rounds mode (`nnlib.training.worker_round.local_round`, `nnlib.training.advance.advance`);
only the partials go another way: not as lines through a reducer but in an all-reduce, all trials in the same one. Every
worker advances by itself, from the same records and averages. So all know the next round's models, which trials go on
and for how many epochs, and none of that has to be sent.
"""

from __future__ import annotations

from nnlib.collective.communicator import Communicator
from nnlib.run.checkpoint import Checkpoint
from nnlib.training.advance import advance, epochs_left
from nnlib.training.allreduce_round import average_gradients, average_weights
from nnlib.training.overlapped_rounds import train_overlapped_rounds
from nnlib.training.round_observer import RoundObserver, RoundPublisher
from nnlib.training.round_outputs import collect_outputs
from nnlib.training.worker import LocalWorker


def train_together(
    worker: LocalWorker,
    group: Communicator,
    checkpoint: Checkpoint,
    observer: RoundObserver | None,
    *,
    until: int | None = None,
) -> Checkpoint:
    """Train from ``checkpoint``, which is the same at every worker, to the last round; return the last checkpoint.

    ``observer``: receives every round (worker 0's commits them); ``until``: the round to stop at, a drained one (see
    `nnlib.run.round_length.drained_round`).

    Raises `WorkerFailedError` at all workers for an error of any, and what ``group`` raises for a lost peer.
    """
    worker.restart(checkpoint)
    publisher = RoundPublisher(worker, group, observer)
    train_rounds = train_overlapped_rounds if worker.spec.config.sync.overlap else _train_rounds
    last = train_rounds(worker, group, checkpoint, publisher, until)
    publisher.finish()
    return last


def _train_rounds(
    worker: LocalWorker, group: Communicator, checkpoint: Checkpoint, publisher: RoundPublisher, until: int | None
) -> Checkpoint:
    """Train one round after the other."""
    spec = worker.spec
    run_round = average_gradients if spec.config.sync.every == "batch" else average_weights
    while checkpoint.round != until and (epochs := epochs_left(spec, checkpoint)):
        report = publisher.begin_report(checkpoint.round + 1)
        averaged = run_round(worker, group, checkpoint, epochs, report)
        outputs, averaged = collect_outputs(worker, group, checkpoint, averaged)
        before, checkpoint = checkpoint, advance(spec, checkpoint, outputs)
        publisher.publish(before, checkpoint, outputs, averaged)
    return checkpoint
