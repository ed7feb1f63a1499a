"""One worker of a group that trains together: score, train, all-reduce, advance, round after round.

The station is the one of rounds mode (`jobs.tasks.local_round`, `jobs.advance.advance`); only the way of the partials
differs: they do not travel as lines through a reducer but in an all-reduce, all trials in the same one. Every worker
advances by itself, from the same records and averages, so all know the next round's models, who goes on and for how
many epochs, and nothing of that has to be sent.
"""

from __future__ import annotations

from jobs.advance import advance, epochs_left
from jobs.group_overlap import overlapped_rounds
from jobs.group_rounds import averaged_round, synchronous_round
from jobs.group_told import Observer, Told, outputs_of
from jobs.local_worker import LocalWorker
from nnlib.checkpoint import Checkpoint
from nnlib.collective.communicator import Communicator


def train_together(
    worker: LocalWorker,
    group: Communicator,
    checkpoint: Checkpoint,
    observer: Observer | None,
    *,
    until: int | None = None,
) -> Checkpoint:
    """Rounds from ``checkpoint``, the same at every worker, to the last (or to round ``until``, a drained one of
    `nnlib.periods.drained_round`); returns the last checkpoint.

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
        record = told.record(checkpoint.round + 1)
        share = take(worker, group, checkpoint, checkpoint.active, epochs, record)
        outputs, share = outputs_of(worker, group, checkpoint, share)
        before, checkpoint = checkpoint, advance(spec, checkpoint, outputs)
        told.round(before, checkpoint, outputs, share)
    return checkpoint
