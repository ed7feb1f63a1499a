"""Where the tasks of a collective job meet, and what they leave there for the driver: who they are, whom they lost.

The folder is one job's alone: ``collective/<job>/`` in the run directory, with the group's key, the members' files
(`nnlib.collective.rendezvous`), a file for each task that says which attempt it is, and one for each loss: with these
the driver can end a task that hangs, so that its runner starts another.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Collection

from jobs.collective.run_status import RunEndedError, require_lock
from jobs.runners.local.attempt import ATTEMPT
from nnlib.collective.communicator import Communicator, PeerLostError
from nnlib.collective.curve_keys import Keys, make_keys, read_keys
from nnlib.collective.join import join
from nnlib.collective.network import LOOPBACK, host_addresses
from nnlib.collective.rendezvous import GangError, Rendezvous
from nnlib.core.errors import JobError
from nnlib.core.liveness import PULSE
from nnlib.run.spec import JobSpec
from nnlib.storage import Storage, storage

HADOOP_ATTEMPT = "mapreduce_task_attempt_id"
"""Environment variable of a streaming job's tasks."""
GIVEN_UP = "given-up.json"
"""Made by the first who waited for others in vain: whoever comes later need not wait again."""
CHECK_SECONDS = {False: 1.0, True: 5.0}
"""Between two looks, while waiting, at whether there is still something to wait for; ``True``: a look is some calls to
another host."""


class Meetings:
    """One worker's meetings with the others."""

    def __init__(self, spec: JobSpec, worker: int, place: Storage, folder: str, lock: str) -> None:
        """``folder``: the group's, in the run directory ``place``."""
        self._spec, self._place, self._lock = spec, place, lock
        self._folder = storage(f"{place.root}/{folder}", private=True)
        self._keys: Keys | None = read_keys(self._folder) if spec.config.sync.encryption else None
        self._addresses = _addresses(spec, place)
        self._rendezvous = Rendezvous(
            self._folder,
            job=folder.rpartition("/")[2],
            worker=worker,
            workers=spec.workers,
            timeout_seconds=spec.config.sync.gang_timeout_seconds,
            max_generations=1 + spec.workers * (spec.config.runtime.retries + 1),
            sleep=self._wait,
        )
        self._ended: Callable[[], bool] = lambda: False
        self._checked = 0.0
        task = {
            "worker": worker,
            "attempt": os.environ.get(ATTEMPT) or os.environ.get(HADOOP_ATTEMPT),
            "host": platform.node(),
            "process": os.getpid(),
        }
        self._folder.create(f"task-{self._rendezvous.incarnation}.json", json.dumps(task).encode() + b"\n")

    def meet(self, ended: Callable[[], bool]) -> Communicator:
        """`jobs.collective.member_task.Meet`. Raises `JobError` with ``slots`` in its place when not all workers
        come."""
        self._ended = ended
        self._check()
        PULSE.waits = True
        try:
            return join(
                self._rendezvous,
                self._keys,
                addresses=self._addresses,
                timeout_seconds=self._spec.config.sync.worker_timeout_seconds,
            )
        except GangError as error:
            give_up(self._folder, error.present, error.missing)
            raise given_up(self._folder, self._spec) from error
        finally:
            PULSE.waits = False

    def report(self, lost: PeerLostError) -> None:
        """Tell the driver whom this worker has lost, of those it met last."""
        facts = {"generation": self._rendezvous.last_complete, "workers": lost.workers, "why": lost.message}
        name = f"lost-{self._rendezvous.last_complete:06d}-by-{self._rendezvous.worker:06d}.json"
        self._folder.create(name, json.dumps(facts).encode() + b"\n")

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)
        if time.monotonic() - self._checked > CHECK_SECONDS["://" in self._place.root]:
            self._check()

    def _check(self) -> None:
        self._checked = time.monotonic()
        require_lock(self._place, self._lock)
        if self._folder.exists(GIVEN_UP):
            raise given_up(self._folder, self._spec)
        if self._ended():
            raise RunEndedError


def give_up(folder: Storage, came: Collection[int], missing: Collection[int]) -> None:
    """Tell all of a group that it is waited for no longer."""
    told = {"came": sorted(came), "missing": sorted(missing)}
    folder.create(GIVEN_UP, json.dumps(told).encode() + b"\n")


def given_up(folder: Storage, spec: JobSpec) -> JobError:
    """What was told: not all workers ran at once. ``slots`` in the error's place: how many did."""
    told = json.loads(folder.read(GIVEN_UP))
    came = len(told["came"])
    return JobError(
        f"only {came} of {spec.workers} workers came to run at once within "
        f"{spec.config.sync.gang_timeout_seconds:g} s (missing: {', '.join(map(str, told['missing']))})",
        hint="use as many slots as workers, wait longer (sync.gang_timeout_seconds), or let it go on in rounds "
        "mode (sync.gang_fallback: rounds)",
        slots=came,
    )


def _addresses(spec: JobSpec, place: Storage) -> list[str]:
    """This host's, on the ways to its peers: those to the storage that all of them reach."""
    if spec.config.runtime.runner == "local":
        return [LOOPBACK]
    from nnlib.storage.hdfs.hadoop_config import hosts  # late: it reads XML, and local groups do without

    return host_addresses(hosts(place.root))


def open_folder(place: Storage, folder: str) -> Storage:
    """The driver makes a job's folder, with a new key in it."""
    made = storage(f"{place.root}/{folder}", private=True)
    make_keys(made)
    return made
