"""What a map task of the collective job does: join the group, train from the newest commit to the end, and score the
last models.

A group that loses a worker is formed again in a new generation: the survivors keep their processes and their rows, the
runner starts another task for the lost worker, and all go on from the newest commit. A task that starts after the last
commit, because its predecessor was lost then, needs no others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from jobs.collective.background_committer import BackgroundCommitter
from jobs.collective.job_folder import JobFiles
from jobs.collective.run_status import RunEndedError, require_lease
from jobs.mapreduce.tasks import metrics_line
from jobs.runners.lines import ERROR_KEY, Line, encode_record
from nnlib.collective.communicator import Communicator, PeerLostError, SupersededError
from nnlib.collective.in_process import InProcessGroup
from nnlib.core.errors import JobError, NnjobsError
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.manifest import ROUNDS
from nnlib.run.round_store import RoundStore
from nnlib.run.spec import JobSpec, WorkerPlan
from nnlib.storage import Storage, storage
from nnlib.training.advance import epochs_left
from nnlib.training.collective_training import train_together
from nnlib.training.contribution import WorkerFailedError
from nnlib.training.worker import LocalWorker

JoinGroup = Callable[[Callable[[], bool]], Communicator]
"""Waits until all workers are there and returns a communicator; raises `RunEndedError` once its argument returns
True."""


def run_member_task(spec: JobSpec, plans: Sequence[WorkerPlan], files: JobFiles) -> Iterator[Line]:
    """Yield all output lines of a task. ``plans``: of one worker, or of all workers, which then run in turn.

    Once another driver than the one that ``files`` names holds the run, nothing is written any more.
    """
    run = storage(files.run_dir, private=True)
    if not run.names(ROUNDS):
        # Not an error line, which the driver reads only when the job has ended: tasks on other nodes may go on waiting.
        raise JobError(f"there is no run directory {run.root} on this node")
    if len(plans) == spec.workers:
        yield from _run_in_process(spec, plans, run, files.lease)
        return
    # Late: pyzmq takes 0.1 s to import, and a group in one process does not need it.
    from jobs.collective.membership import Membership

    (plan,) = plans
    membership = Membership(spec, plan.worker, run, files)
    worker = CollectiveWorker(spec, plan, run, files.lease)
    worker.prepare()
    yield from worker.run(membership.join, membership.report_loss)


def _run_in_process(spec: JobSpec, plans: Sequence[WorkerPlan], run: Storage, lease: str) -> Iterator[Line]:
    lines: dict[int, list[Line]] = {}

    def work(group: Communicator) -> None:
        worker = CollectiveWorker(spec, plans[group.worker], run, lease)
        lines[group.worker] = list(worker.run(lambda has_run_ended: group))

    InProcessGroup(spec.workers).run(work)
    for number in sorted(lines):
        yield from lines[number]


class CollectiveWorker:
    """One worker of the job, through all generations of its group."""

    def __init__(self, spec: JobSpec, plan: WorkerPlan, run: Storage, lease: str) -> None:
        self._spec, self._number, self._run, self._lease = spec, plan.worker, run, lease
        self._store = RoundStore(run, [spec.model(trial).layout for trial in spec.trials])
        self._worker = LocalWorker(spec, plan)
        self._loaded: Checkpoint | None = None

    def prepare(self) -> None:
        """Begin to read the rows in the background, while the other workers are waited for."""
        self._worker.prepare()

    def run(self, join_group: JoinGroup, report_loss: Callable[[PeerLostError], None] | None = None) -> Iterator[Line]:
        """Train to the end; yield the records of the last models, or one with the error why there are none.

        ``report_loss`` is called for every loss of a peer, after which the worker joins the group again; None where
        there is no other group to join.
        """
        with self._worker as worker:
            try:
                last = self._train(join_group, report_loss)
                for index, state in enumerate(last.trials):
                    yield metrics_line(self._number, index, worker.score(index, state))
            except SupersededError:
                raise  # another task yields this worker's lines
            except WorkerFailedError as failed:
                if failed.is_local:
                    yield ERROR_KEY, encode_record(self._number, failed.error.to_record())
            except NnjobsError as error:
                yield ERROR_KEY, encode_record(self._number, error.to_record())

    def _train(self, join_group: JoinGroup, report_loss: Callable[[PeerLostError], None] | None) -> Checkpoint:
        """Train in one generation after the other until one reaches the last round."""
        while True:
            checkpoint = self._newest()
            if not epochs_left(self._spec, checkpoint):
                return checkpoint
            try:
                with join_group(self._has_run_ended) as group:
                    return self._train_generation(group)
            except RunEndedError:
                continue
            except PeerLostError as lost:
                if report_loss is None:
                    raise
                report_loss(lost)

    def _newest(self) -> Checkpoint:
        newest = self._store.newest()
        if self._loaded is None or self._loaded.round != newest:
            self._loaded = self._store.load(newest)
        return self._loaded

    def _has_run_ended(self) -> bool:
        """Whether the other workers have made the last commit after this task was started."""
        return not epochs_left(self._spec, self._newest())

    def _train_generation(self, group: Communicator) -> Checkpoint:
        """Agree on the commit to start from (worker 0's newest), then train to the end."""
        newest = self._store.newest() if group.worker == 0 else None
        answers = group.exchange([[json.dumps(newest).encode()]] * group.workers)
        checkpoint = self._store.load(json.loads(bytes(answers[0][0])))
        checkpoint.kept = self._store.kept(checkpoint.round)
        with ExitStack() as stack:
            committer = None
            if group.worker == 0:
                self._store.forget()
                committer = stack.enter_context(
                    BackgroundCommitter(
                        self._spec,
                        self._store,
                        checkpoint,
                        generation=group.generation,
                        require_lease=partial(require_lease, self._run, self._lease),
                    )
                )
            return train_together(self._worker, group, checkpoint, committer)
