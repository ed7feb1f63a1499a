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

from jobs.advance import epochs_left
from jobs.group_record import Recorder
from jobs.group_worker import LocalWorker, TroubleError, train_together
from jobs.tasks import Line, metrics_line
from jobs.turns import Turns
from nnlib.checkpoint import Checkpoint, RoundStore
from nnlib.collective.communicator import Communicator
from nnlib.errors import JobError, NnjobsError
from nnlib.lock import held
from nnlib.plan import JobSpec, WorkerPlan
from nnlib.storage import Storage, storage
from nnlib.wire import ERROR_KEY, encode_record


def group_task(spec: JobSpec, plans: Sequence[WorkerPlan], run_dir: str, lock: str) -> Iterator[Line]:
    """All lines of a task that was given ``plans``: those of all workers, or its own. ``lock`` is the lease of the
    driver that started the job: without it nothing is written any more."""
    place = storage(run_dir, private=True)
    if len(plans) == spec.workers:
        lines: dict[int, list[Line]] = {}

        def take_part(group: Communicator) -> None:
            member = Member(spec, plans[group.worker], place, lock)
            lines[group.worker] = list(member.lines(lambda: group))

        Turns(spec.workers).run(take_part)
        for worker in sorted(lines):
            yield from lines[worker]
        return
    raise NotImplementedError


class Member:
    """One worker of the job."""

    def __init__(self, spec: JobSpec, plan: WorkerPlan, place: Storage, lock: str) -> None:
        self._spec, self._number, self._place, self._lock = spec, plan.worker, place, lock
        self._store = RoundStore(place, [spec.model(trial).layout for trial in spec.trials])
        self._worker = LocalWorker(spec, plan)

    def lines(self, meet: Callable[[], Communicator]) -> Iterator[Line]:
        """Train to the end; the records of the last models, or one that says why there are none."""
        with self._worker as worker:
            try:
                last = self._train(meet)
                for index, state in enumerate(last.trials):
                    yield metrics_line(self._number, index, worker.scores(index, state))
            except TroubleError as trouble:
                if trouble.own:
                    yield self._error(trouble.error)
            except NnjobsError as error:
                yield self._error(error)

    def _error(self, error: NnjobsError) -> Line:
        error.where.setdefault("worker", self._number)
        return ERROR_KEY, encode_record(self._number, error.to_record())

    def _train(self, meet: Callable[[], Communicator]) -> Checkpoint:
        checkpoint = self._store.load(self._store.newest())
        if not epochs_left(self._spec, checkpoint):
            return checkpoint
        with meet() as group:
            return self._generation(group)

    def _generation(self, group: Communicator) -> Checkpoint:
        """Agree on the commit to go on from, then train to the end."""
        newest = self._store.newest() if group.worker == 0 else None
        told = group.exchange([[json.dumps(newest).encode()]] * group.workers)
        checkpoint = self._store.load(json.loads(bytes(told[0][0])))
        with ExitStack() as stack:
            recorder = None
            if group.worker == 0:
                self._store.forget()
                may_write = partial(require_lock, self._place, self._lock)
                made = Recorder(self._spec, self._store, checkpoint, generation=group.generation, may_write=may_write)
                recorder = stack.enter_context(made)
            return train_together(self._worker, group, checkpoint, recorder)


def require_lock(place: Storage, lock: str) -> None:
    """Raise `JobError` if the driver that started the job is gone, or another one drives the run."""
    if not held(place, lock):
        raise JobError(
            "the driver of this job is gone: its run is another's now", hint="nnjobs train --resume", run=place.root
        )
