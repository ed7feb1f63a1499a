"""What a map task of the collective job does: meet the others, go on from the newest commit, and score the end.

A group that breaks meets again in a new generation: whoever is left keeps its process and its rows, the one who was
lost is replaced by the runner, and all go on from the newest commit. A task whose run is at its end, because it was
lost after the last commit, needs nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from jobs.collective.background_committer import Recorder
from jobs.collective.run_status import RunEndedError, require_lock
from jobs.mapreduce.tasks import metrics_line
from jobs.runners.lines import ERROR_KEY, Line, encode_record
from nnlib.collective.communicator import Communicator, PeerLostError, SupersededError
from nnlib.collective.in_process import InProcessGroup
from nnlib.core.errors import JobError, NnjobsError
from nnlib.run.checkpoint import ROUNDS, Checkpoint, RoundStore
from nnlib.run.spec import JobSpec, WorkerPlan
from nnlib.storage import Storage, storage
from nnlib.training.advance import epochs_left
from nnlib.training.allreduce_round import TroubleError
from nnlib.training.collective_training import train_together
from nnlib.training.worker import LocalWorker


def group_task(spec: JobSpec, plans: Sequence[WorkerPlan], run_dir: str, group: str, lock: str) -> Iterator[Line]:
    """All lines of a task that was given ``plans``: those of all workers, or its own.

    ``group`` is the folder of the run directory in which the job's workers meet; ``lock`` is the lease of the driver
    that started it: without it nothing is written any more.
    """
    place = storage(run_dir, private=True)
    if not place.names(ROUNDS):
        # Not an error's line, which is read at the job's end: others may wait on nodes that do have it.
        raise JobError(f"there is no run directory {place.root} on this node")
    if len(plans) < spec.workers:
        from jobs.collective.membership import (
            Meetings,  # late: pyzmq takes 0.1 s, and a group in one process needs none
        )

        (plan,) = plans
        meetings = Meetings(spec, plan.worker, place, group, lock)
        member = Member(spec, plan, place, lock)
        member.prepare()
        yield from member.lines(meetings.meet, meetings.report)
        return
    lines: dict[int, list[Line]] = {}

    def take_part(group: Communicator) -> None:
        lines[group.worker] = list(Member(spec, plans[group.worker], place, lock).lines(lambda ended: group))

    InProcessGroup(spec.workers).run(take_part)
    for worker in sorted(lines):
        yield from lines[worker]


Meet = Callable[[Callable[[], bool]], Communicator]
"""Waits until all workers have come; raises `RunEndedError` once the function it is given returns True."""


class Member:
    """One worker of the job."""

    def __init__(self, spec: JobSpec, plan: WorkerPlan, place: Storage, lock: str) -> None:
        self._spec, self._number, self._place, self._lock = spec, plan.worker, place, lock
        self._store = RoundStore(place, [spec.model(trial).layout for trial in spec.trials])
        self._worker = LocalWorker(spec, plan)
        self._loaded: Checkpoint | None = None

    def prepare(self) -> None:
        """Begin to read the rows, while others are waited for."""
        self._worker.prepare()

    def lines(self, meet: Meet, report: Callable[[PeerLostError], None] | None = None) -> Iterator[Line]:
        """Train to the end; the records of the last models, or one that says why there are none. ``report`` is told of
        every loss."""
        with self._worker as worker:
            try:
                last = self._train(meet, report)
                for index, state in enumerate(last.trials):
                    yield metrics_line(self._number, index, worker.scores(index, state))
            except SupersededError:
                raise  # another task stands in this one's place: it ends with nothing to say
            except TroubleError as trouble:
                if trouble.own:
                    yield ERROR_KEY, encode_record(self._number, trouble.error.to_record())
            except NnjobsError as error:
                yield ERROR_KEY, encode_record(self._number, error.to_record())

    def _train(self, meet: Meet, report: Callable[[PeerLostError], None] | None) -> Checkpoint:
        while True:
            checkpoint = self._newest()
            if not epochs_left(self._spec, checkpoint):
                return checkpoint
            try:
                with meet(self._ended) as group:
                    return self._generation(group)
            except RunEndedError:
                continue
            except PeerLostError as lost:
                if report is None:
                    raise
                report(lost)

    def _newest(self) -> Checkpoint:
        newest = self._store.newest()
        if self._loaded is None or self._loaded.round != newest:
            self._loaded = self._store.load(newest)
        return self._loaded

    def _ended(self) -> bool:
        """Whether the others need nobody any more: they may have committed the end after this task was started."""
        return not epochs_left(self._spec, self._newest())

    def _generation(self, group: Communicator) -> Checkpoint:
        """Agree on the commit to go on from, then train to the end."""
        newest = self._store.newest() if group.worker == 0 else None
        told = group.exchange([[json.dumps(newest).encode()]] * group.workers)
        checkpoint = self._store.load(json.loads(bytes(told[0][0])))
        if self._spec.config.sync.error_feedback:
            checkpoint.residuals = self._store.residuals(checkpoint.round)
        with ExitStack() as stack:
            recorder = None
            if group.worker == 0:
                self._store.forget()
                may_write = partial(require_lock, self._place, self._lock)
                made = Recorder(self._spec, self._store, checkpoint, generation=group.generation, may_write=may_write)
                recorder = stack.enter_context(made)
            return train_together(self._worker, group, checkpoint, recorder)
