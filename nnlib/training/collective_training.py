"""One worker of a group that trains together: score, train, all-reduce, advance, round after round.

The station is the one of rounds mode (`nnlib.training.worker_round.local_round`, `nnlib.training.advance.advance`);
only the way of the partials differs: they do not travel as lines through a reducer but in an all-reduce, all trials in
the same one. Every worker advances by itself, from the same records and averages, so all know the next round's models,
who goes on and for how many epochs, and nothing of that has to be sent."""

from __future__ import annotations

from nnlib.collective.communicator import Communicator
from nnlib.run.checkpoint import Checkpoint
from nnlib.training.advance import advance, epochs_left
from nnlib.training.allreduce_round import averaged_round, synchronous_round
from nnlib.training.overlapped_rounds import overlapped_rounds
from nnlib.training.round_observer import RoundObserver, Told, outputs_of
from nnlib.training.worker import LocalWorker


def train_together(
    worker: LocalWorker,
    group: Communicator,
    checkpoint: Checkpoint,
    observer: RoundObserver | None,
    *,
    until: int | None = None,
) -> Checkpoint:
    """Rounds from ``checkpoint``, the same at every worker, to the last (or to round ``until``, a drained one of
    `nnlib.run.round_length.drained_round`); returns the last checkpoint.

    Raises `TroubleError` at all workers for an error of any, and what the group raises when it breaks.
    """
    worker.restart(checkpoint)
    told = Told(worker, group, observer)
    rounds = overlapped_rounds if worker.spec.config.sync.overlap else _rounds
    last = rounds(worker, group, checkpoint, told, until)
    told.end()
    return last


def _rounds(
    worker: LocalWorker, group: Communicator, checkpoint: Checkpoint, told: Told, until: int | None
) -> Checkpoint:
    """One round after the other."""
    spec = worker.spec
    take = synchronous_round if spec.config.sync.every == "batch" else averaged_round
    while checkpoint.round != until and (epochs := epochs_left(spec, checkpoint)):
        report = told.report(checkpoint.round + 1)
        share = take(worker, group, checkpoint, checkpoint.active, epochs, report)
        outputs, share = outputs_of(worker, group, checkpoint, share)
        before, checkpoint = checkpoint, advance(spec, checkpoint, outputs)
        told.round(before, checkpoint, outputs, share)
    return checkpoint
