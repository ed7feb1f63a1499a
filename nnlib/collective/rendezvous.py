"""How the workers of a job find each other: by small files in a storage that all of them reach, and no server.

The workers meet in generations. In each, every worker posts one file that says where it is; when all are there, the
generation is complete. Who lost a peer, or starts anew in the place of a task that died, goes on to a newer one:

- a new task whose place in the newest generation is taken by its predecessor opens the next one;
- a survivor joins the newest generation above the one it lost, or opens the next;
- a task whose place in a newer generation is taken by another has been replaced: it ends (`SupersededError`).

Files are made by `Storage.create`, which one of several wins, and never changed; so whatever the order in which
survivors and replacements come, all who live end in the newest generation.
"""

from __future__ import annotations

import json
import platform
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nnlib.collective.communicator import SupersededError
from nnlib.core.errors import JobError, MismatchError
from nnlib.storage import Storage

FORMAT_VERSION = 1
_NAME = re.compile(r"generation-(\d{6})-worker-(\d{6})\.json")
_PAUSES = (0.02, 0.25)
"""Seconds between two looks at the storage: at first, and at most."""
_LOOKS = 200
"""At the storage in a second, by all workers of a large group together: their pauses are longer."""


class GangError(JobError):
    """Not all workers of a job ran at once. ``came``, ``missing``: who."""

    def __init__(self, came: Sequence[int], missing: Sequence[int], seconds: float) -> None:
        self.came = sorted(came)
        self.missing = sorted(missing)
        super().__init__(
            f"{len(came)} of {len(came) + len(missing)} workers came within {seconds:g} s: "
            f"{_listed(self.came)}; missing {_listed(self.missing)}",
            hint="are there fewer slots than workers? lower workers, wait longer (sync.gang_timeout_seconds), "
            "or use sync.mode: rounds",
        )


@dataclass(frozen=True)
class Route:
    """An address of a host with a worker's ports there."""

    address: str
    messages: int
    beats: int


@dataclass(frozen=True)
class Member:
    """A worker's task: who it is and where. ``facts`` must be the same for all members (numerics, key, plan ...)."""

    worker: int
    incarnation: str
    host: str
    routes: tuple[Route, ...]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Meeting:
    """A complete generation, as seen by ``worker``; members in worker order."""

    job: str
    generation: int
    worker: int
    members: tuple[Member, ...]


class Rendezvous:
    """One task's part in the meetings of its job; it lives as long as the task."""

    def __init__(
        self,
        folder: Storage,
        *,
        job: str,
        worker: int,
        workers: int,
        facts: Mapping[str, str] | None = None,
        timeout_seconds: float = 120.0,
        most_generations: int = 20,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``folder``: this job's alone. ``timeout_seconds``: how long the others of a generation are waited for."""
        self._folder = folder
        self.job = job
        self.worker = worker
        self.workers = workers
        self.incarnation = secrets.token_hex(8)
        self._facts = dict(facts or {})
        self._timeout = timeout_seconds
        self._most = most_generations
        self._sleep = sleep
        self._own: set[int] = set()
        """Generations in which this task posted."""
        self._met = 0
        """The last generation that was complete."""

    def meet(self, routes: Sequence[Route]) -> Meeting:
        """Wait until all workers are there, in a generation newer than the last one met in.

        Raises `GangError` when they do not all come in time, `SupersededError`, `MismatchError` for members that do
        not belong together, `JobError` when the group had to be formed too often.
        """
        own = Member(self.worker, self.incarnation, platform.node(), tuple(routes), self._facts)
        generation = 0
        members: dict[int, Member] = {}
        begin = time.monotonic()
        pause = _PAUSES[0]
        while True:
            posted = self._posted()
            newest = max(max(posted, default=0), self._met + 1)
            if newest != generation:
                generation, members = self._post(own, newest, posted), {}
                begin, pause = time.monotonic(), _PAUSES[0]
                continue
            for worker in posted[generation] - members.keys():
                members[worker] = self._read(generation, worker)
            if len(members) == self.workers:
                _check(members)
                self._met = generation
                return Meeting(self.job, generation, self.worker, tuple(members[each] for each in sorted(members)))
            if time.monotonic() - begin > self._timeout:
                raise GangError(list(members), sorted(set(range(self.workers)) - members.keys()), self._timeout)
            self._sleep(pause)
            pause = min(1.5 * pause, max(_PAUSES[1], self.workers / _LOOKS))

    @property
    def met(self) -> int:
        """The last generation that was complete; 0 before the first."""
        return self._met

    def newer(self) -> set[int]:
        """Workers that went on to a generation newer than the last one met in: whoever did not is to follow."""
        return {
            worker for generation, workers in self._posted().items() if generation > self._met for worker in workers
        }

    def _posted(self) -> dict[int, set[int]]:
        """Generation -> workers that stand in it. Raises `SupersededError` if this task was replaced."""
        posted = standing(self._folder.names(), self.workers)
        if self._own:
            taken = [each for each, workers in posted.items() if self.worker in workers and each not in self._own]
            if any(each > min(self._own) for each in taken):
                raise SupersededError(
                    f"another task has taken the place of worker {self.worker} in generation {max(taken)}",
                    worker=self.worker,
                )
        return posted

    def _post(self, own: Member, generation: int, posted: Mapping[int, set[int]]) -> int:
        """Stand in a generation, or above it if a predecessor of this task stands there; which one it became, 0 if
        another task was quicker."""
        if self.worker in posted.get(generation, ()):
            generation += 1
        if generation > self._most:
            raise JobError(
                f"the group had to be formed {self._most} times: its workers are lost again and again",
                hint="see the tasks' own logs",
            )
        record = {"format_version": FORMAT_VERSION, "job": self.job, "workers": self.workers, **asdict(own)}
        data = json.dumps(record, sort_keys=True).encode() + b"\n"
        created = self._folder.create(_name(generation, self.worker), data)
        # a storage that tried twice may call its own first try another's
        if created or self._read(generation, self.worker).incarnation == self.incarnation:
            self._own.add(generation)
            return generation
        return 0

    def _read(self, generation: int, worker: int) -> Member:
        name = _name(generation, worker)
        place = f"{self._folder.root}/{name}"
        try:
            record: dict[str, Any] = json.loads(self._folder.read(name))
            version, job, workers = (record.pop(key) for key in ("format_version", "job", "workers"))
            routes = tuple(Route(**route) for route in record.pop("routes"))
            member = Member(**record, routes=routes)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MismatchError("not a member's file", file=place) from error
        expected = (FORMAT_VERSION, self.job, self.workers, worker)
        if (version, job, workers, member.worker) != expected:
            raise MismatchError(
                f"format, job, workers, worker are {(version, job, workers, member.worker)}, expected {expected}",
                file=place,
            )
        return member


def standing(names: Iterable[str], workers: int) -> dict[int, set[int]]:
    """Generation -> those of the ``workers`` that stand in it, by the names of a job's files."""
    found: dict[int, set[int]] = {}
    for name in names:
        if (member := _NAME.fullmatch(name)) is not None and int(member[2]) < workers:
            found.setdefault(int(member[1]), set()).add(int(member[2]))
    return found


def _check(members: Mapping[int, Member]) -> None:
    """All members must agree on all facts: every one refuses the same first difference from worker 0."""
    for worker in sorted(members):
        for key in sorted({*members[0].facts, *members[worker].facts}):
            one, other = members[0].facts.get(key), members[worker].facts.get(key)
            if one != other:
                raise MismatchError(
                    f"{key} of worker {worker} on {members[worker].host} is {other}, "
                    f"of worker 0 on {members[0].host} it is {one}"
                )


def _name(generation: int, worker: int) -> str:
    return f"generation-{generation:06d}-worker-{worker:06d}.json"


def _listed(workers: Sequence[int]) -> str:
    """Numbers with runs drawn together: 0-3, 5."""
    runs: list[list[int]] = []
    for worker in workers:
        if runs and worker == runs[-1][1] + 1:
            runs[-1][1] = worker
        else:
            runs.append([worker, worker])
    return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs) or "none"
