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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.attempts import ATTEMPT
from jobs.group_end import RunEndedError, require_lock
from nnlib.collective.communicator import Communicator, PeerLostError
from nnlib.collective.group import join
from nnlib.collective.interfaces import LOOPBACK, own_addresses
from nnlib.collective.keys import Keys, make_keys, read_keys
from nnlib.collective.rendezvous import GangError, Rendezvous
from nnlib.errors import JobError, StorageError
from nnlib.plan import JobSpec
from nnlib.pulse import PULSE
from nnlib.storage import Storage, storage

HADOOP_ATTEMPT = "mapreduce_task_attempt_id"
"""Environment variable of a streaming job's tasks."""
GIVEN_UP = "given-up.json"
"""Made by the first who waited for others in vain: whoever comes later need not wait again."""
COME_AGAIN_SECONDS = 2.0
"""For so long the driver waits whether a worker that others call lost meets them again."""
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
            most_generations=1 + spec.workers * (spec.config.runtime.retries + 1),
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
        """`jobs.group_task.Meet`. Raises `JobError` with ``slots`` in its place when not all workers come."""
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
            give_up(self._folder, error.came, error.missing)
            raise given_up(self._folder, self._spec) from error
        finally:
            PULSE.waits = False

    def report(self, lost: PeerLostError) -> None:
        """Tell the driver whom this worker has lost, of those it met last."""
        facts = {"generation": self._rendezvous.met, "workers": lost.workers, "why": lost.message}
        name = f"lost-{self._rendezvous.met:06d}-by-{self._rendezvous.worker:06d}.json"
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
    from nnlib.storage.hadoop_config import hosts  # late: it reads XML, and local groups do without

    return own_addresses(hosts(place.root))


def open_folder(place: Storage, folder: str) -> Storage:
    """The driver makes a job's folder, with a new key in it."""
    made = storage(f"{place.root}/{folder}", private=True)
    make_keys(made)
    return made


@dataclass(frozen=True)
class Loss:
    """A task that its group has lost: worker, which attempt of its task it was (None: not known), and why."""

    worker: int
    attempt: str | None
    generation: int
    why: str


class Losses:
    """The driver's view of a group: which of those who were reported lost are lost.

    Whoever meets the others again lives: it was only quicker than they to notice that someone else is gone.
    """

    def __init__(self, folder: Storage, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._read: set[str] = set()
        self._reported: dict[tuple[int, int], tuple[float, Loss]] = {}
        self._decided: set[tuple[int, int]] = set()

    def confirmed(self, names: Sequence[str]) -> list[Loss]:
        """Losses that are certain now: of workers that were replaced, or that did not come again in time. ``names``: of
        the folder's files."""
        for name in names:
            if name.startswith("lost-") and name not in self._read:
                self._read.add(name)
                self._take(json.loads(self._folder.read(name)))
        found = []
        for place, (since, loss) in list(self._reported.items()):
            again = self._incarnations(names, loss)
            if not again and self._clock() - since < COME_AGAIN_SECONDS:
                continue
            del self._reported[place]
            self._decided.add(place)
            if self._incarnation(*place) not in again:
                found.append(loss)
        return found

    def _take(self, facts: dict[str, Any]) -> None:
        for worker in facts["workers"]:
            place = (facts["generation"], worker)
            if place not in self._decided and place not in self._reported:
                loss = Loss(worker, self._attempt(*place), facts["generation"], facts["why"])
                self._reported[place] = (self._clock(), loss)

    def _incarnations(self, names: Sequence[str], loss: Loss) -> set[str | None]:
        """Who stands in the worker's place in newer generations."""
        found = set()
        for name in names:
            if name.startswith("generation-") and name.endswith(f"-worker-{loss.worker:06d}.json"):
                generation = int(name.split("-")[1])
                if generation > loss.generation:
                    found.add(self._incarnation(generation, loss.worker))
        return found

    def _incarnation(self, generation: int, worker: int) -> str | None:
        return self._fact(f"generation-{generation:06d}-worker-{worker:06d}.json", "incarnation")

    def _attempt(self, generation: int, worker: int) -> str | None:
        return self._fact(f"task-{self._incarnation(generation, worker)}.json", "attempt")

    def _fact(self, name: str, key: str) -> str | None:
        try:
            fact = json.loads(self._folder.read(name))[key]
        except (StorageError, ValueError, KeyError, TypeError):
            return None
        return None if fact is None else str(fact)
