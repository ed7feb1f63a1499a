"""How a task of a collective job joins its group, again after every loss, and reports which peers it has lost."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable

from jobs.collective.job_folder import GangFailure, JobFiles, JobFolder, LossReport, TaskRecord
from jobs.collective.run_status import RunEndedError, require_lease
from jobs.runners.local.attempt import ATTEMPT
from nnlib.collective.communicator import Communicator, PeerLostError
from nnlib.collective.curve_keys import Keys, read_keys
from nnlib.collective.join import join
from nnlib.collective.network import LOOPBACK, host_addresses
from nnlib.collective.rendezvous import GangError, Rendezvous
from nnlib.config.runners import runner_named
from nnlib.core.liveness import HEARTBEAT
from nnlib.run.spec import JobSpec
from nnlib.storage import Storage

HADOOP_ATTEMPT = "mapreduce_task_attempt_id"
"""Environment variable of a streaming job's tasks."""
CHECK_SECONDS = {False: 1.0, True: 5.0}
"""How often a waiting task checks whether there is still something to wait for; ``True``: in a remote storage, where a
check takes several requests."""


class Membership:
    """One worker's membership in the group of its job."""

    def __init__(self, spec: JobSpec, worker: int, run: Storage, files: JobFiles) -> None:
        """``run``: the run directory; ``files``: where the job works in it."""
        self._spec, self._run, self._lease = spec, run, files.lease
        self._folder = JobFolder(run, files.folder)
        self._keys: Keys | None = read_keys(self._folder.files) if spec.config.sync.encryption else None
        self._addresses = _addresses(spec, run)
        self._rendezvous = Rendezvous(
            self._folder.files,
            job=files.folder.rpartition("/")[2],
            worker=worker,
            workers=spec.workers,
            timeout_seconds=spec.config.sync.gang_timeout_seconds,
            replacement_seconds=files.replacement_seconds,
            max_generations=1 + spec.workers * (spec.config.runtime.retries + 1),
            sleep=self._wait,
        )
        self._has_run_ended: Callable[[], bool] = lambda: False
        self._checked = 0.0
        attempt = os.environ.get(ATTEMPT) or os.environ.get(HADOOP_ATTEMPT)
        self._folder.add_task(self._rendezvous.incarnation, TaskRecord(worker, attempt, platform.node(), os.getpid()))

    def join(self, has_run_ended: Callable[[], bool]) -> Communicator:
        """Join the next generation of the group: a `jobs.collective.member_task.JoinGroup`.

        Raises `RunEndedError`; `JobError` when the driver is gone, or, with ``slots`` in its ``where``, when not all
        workers come.
        """
        self._has_run_ended = has_run_ended
        self._check()
        HEARTBEAT.is_waiting = True
        try:
            return join(
                self._rendezvous,
                self._keys,
                addresses=self._addresses,
                timeout_seconds=self._spec.config.sync.worker_timeout_seconds,
            )
        except GangError as error:
            self._folder.give_up(GangFailure(tuple(error.present), tuple(error.missing), error.seconds))
            raise self._folder.gang_error(self._spec) from error
        finally:
            HEARTBEAT.is_waiting = False

    def report_loss(self, lost: PeerLostError) -> None:
        """Report to the driver which workers of the last generation this worker has lost."""
        report = LossReport(self._rendezvous.last_complete, tuple(lost.workers), lost.message)
        self._folder.report_loss(self._rendezvous.worker, report)

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)
        if time.monotonic() - self._checked > CHECK_SECONDS[self._run.is_remote]:
            self._check()

    def _check(self) -> None:
        """Raise an error if there is nothing to wait for any more."""
        self._checked = time.monotonic()
        require_lease(self._run, self._lease)
        if self._folder.is_given_up():
            raise self._folder.gang_error(self._spec)
        if self._has_run_ended():
            raise RunEndedError


def _addresses(spec: JobSpec, run: Storage) -> list[str]:
    """This host's addresses on the ways to its peers: those to the storage that all of them reach."""
    if not runner_named(spec.config.runtime.runner).is_remote:
        return [LOOPBACK]
    from nnlib.storage.hdfs.hadoop_config import hosts  # late: it reads XML, which local groups do not need

    return host_addresses(hosts(run.root))
