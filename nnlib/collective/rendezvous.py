"""How the workers of a job find each other: by small files in a storage that all of them reach, without a server.

A group is formed in generations. In each, every worker creates one file that says where it can be reached; when all
files are there, the generation is complete. A worker that has lost a peer, and a task that replaces a dead one, go on
to a newer generation:

- a new task opens the next generation if its predecessor has a file in the newest one;
- a survivor joins the newest generation above the one that broke, or opens the next one;
- a task has been replaced if another task has this worker's file in a newer generation: it ends (`SupersededError`).

Files are made by `Storage.create`, in which exactly one of several writers succeeds, and they never change. So in
whatever order survivors and replacements come, all that are alive end in the newest generation.
"""

from __future__ import annotations

import json
import platform
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nnlib.collective.communicator import SupersededError
from nnlib.core.errors import JobError, MismatchError
from nnlib.storage import Storage

FORMAT_VERSION = 1
_NAME = re.compile(r"generation-(\d{6})-worker-(\d{6})\.json")
_PAUSES = (0.02, 0.25)
"""Shortest and longest pause in seconds between two looks at the storage; they grow in between."""
_LOOKS_PER_SECOND = 200
"""Of all workers of a large group together: their pauses are longer."""


class GangError(JobError):
    """Raised when not all workers of a job run at once, within ``seconds``. ``present``, ``missing``: the workers,
    sorted."""

    def __init__(self, present: Sequence[int], missing: Sequence[int], seconds: float) -> None:
        self.present = sorted(present)
        self.missing = sorted(missing)
        self.seconds = seconds
        super().__init__(
            f"{len(present)} of {len(present) + len(missing)} workers came within {seconds:g} s: "
            f"{numbers_text(self.present)}; missing {numbers_text(self.missing)}",
            hint="are there fewer slots than workers? lower workers, wait longer (sync.gang_timeout_seconds), "
            "or use sync.mode: rounds",
        )


@dataclass(frozen=True)
class Route:
    """An address of a host with a worker's ports there: ``messages``, and ``beats`` for heartbeats."""

    address: str
    messages: int
    beats: int


@dataclass(frozen=True)
class Member:
    """A worker's task in a generation: its worker number, its random name (``incarnation``), and where it runs."""

    worker: int
    incarnation: str
    host: str
    routes: tuple[Route, ...]


@dataclass(frozen=True)
class Generation:
    """A complete generation, as seen by ``worker``; ``members`` in worker order."""

    job: str
    number: int
    worker: int
    members: tuple[Member, ...]


class Rendezvous:
    """Forms generations for one task of a job; it lives as long as the task.

    ``incarnation``: the task's random name.
    """

    def __init__(
        self,
        folder: Storage,
        *,
        job: str,
        worker: int,
        workers: int,
        timeout_seconds: float = 120.0,
        replacement_seconds: float = 0.0,
        max_generations: int = 20,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``folder``: this job's alone. ``timeout_seconds``: how long the other workers of a generation are waited
        for; for ``replacement_seconds`` more in every generation but the first, because it may take so long until a
        lost worker's replacement is started. ``sleep`` is called between two looks at the folder."""
        self._folder = folder
        self.job = job
        self.worker = worker
        self.workers = workers
        self.incarnation = secrets.token_hex(8)
        self._timeout, self._replacement = timeout_seconds, replacement_seconds
        self._max_generations = max_generations
        self._sleep = sleep
        self._joined: set[int] = set()
        """Generations in which this task has a file."""
        self._last_complete = 0

    def join_generation(self, routes: Sequence[Route]) -> Generation:
        """Wait until all workers are in a generation newer than `last_complete`, and return it.

        ``routes``: where this worker can be reached.

        Raises `GangError` when not all workers come in time, `SupersededError`, `MismatchError` for a member's file
        that does not belong to the job, `JobError` when the group had to be formed too often.
        """
        this = Member(self.worker, self.incarnation, platform.node(), tuple(routes))
        generation = 0
        members: dict[int, Member] = {}
        begin = time.monotonic()
        pause = _PAUSES[0]
        while True:
            generations = self._list_generations()
            newest = max(max(generations, default=0), self._last_complete + 1)
            if newest != generation:
                generation, members = self._enter(this, newest, generations), {}
                begin, pause = time.monotonic(), _PAUSES[0]
                continue
            for worker in generations[generation] - members.keys():
                members[worker] = self._read(generation, worker)
            if len(members) == self.workers:
                self._last_complete = generation
                return Generation(self.job, generation, self.worker, tuple(members[each] for each in sorted(members)))
            timeout = self._timeout + (self._replacement if generation > 1 else 0.0)
            if time.monotonic() - begin > timeout:
                raise GangError(list(members), sorted(set(range(self.workers)) - members.keys()), timeout)
            self._sleep(pause)
            pause = min(1.5 * pause, max(_PAUSES[1], self.workers / _LOOKS_PER_SECOND))

    @property
    def last_complete(self) -> int:
        """The number of the last complete generation; 0 before the first."""
        return self._last_complete

    def workers_ahead(self) -> set[int]:
        """Return the workers in generations newer than `last_complete`: if there are any, this one has to follow.

        Raises `SupersededError` if this task was replaced.
        """
        return {
            worker
            for generation, workers in self._list_generations().items()
            if generation > self._last_complete
            for worker in workers
        }

    def _list_generations(self) -> dict[int, set[int]]:
        """Generation -> its workers. Raises `SupersededError` if this task was replaced."""
        generations = list_generations(self._folder.names(), self.workers)
        if self._joined:
            taken = [
                generation
                for generation, workers in generations.items()
                if self.worker in workers and generation not in self._joined
            ]
            if any(generation > min(self._joined) for generation in taken):
                raise SupersededError(
                    f"another task has replaced this one as worker {self.worker} in generation {max(taken)}",
                    worker=self.worker,
                )
        return generations

    def _enter(self, this: Member, generation: int, generations: Mapping[int, set[int]]) -> int:
        """Create this task's file in a generation, or in the next one if a predecessor's file is there. Returns the
        generation that was entered, 0 if another task was quicker."""
        if self.worker in generations.get(generation, ()):
            generation += 1
        if generation > self._max_generations:
            raise JobError(
                f"the group had to be formed {self._max_generations} times: its workers are lost again and again",
                hint="see the tasks' own logs",
            )
        record = {"format_version": FORMAT_VERSION, "job": self.job, "workers": self.workers, **asdict(this)}
        data = json.dumps(record, sort_keys=True).encode() + b"\n"
        created = self._folder.create(member_file(generation, self.worker), data)
        # A storage that has retried the creation may take its own first attempt for another task's.
        if created or self._read(generation, self.worker).incarnation == self.incarnation:
            self._joined.add(generation)
            return generation
        return 0

    def _read(self, generation: int, worker: int) -> Member:
        name = member_file(generation, worker)
        path = f"{self._folder.root}/{name}"
        try:
            record: dict[str, Any] = json.loads(self._folder.read(name))
            version, job, workers = (record.pop(key) for key in ("format_version", "job", "workers"))
            routes = tuple(Route(**route) for route in record.pop("routes"))
            member = Member(**record, routes=routes)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MismatchError("not a member's file", file=path) from error
        expected = (FORMAT_VERSION, self.job, self.workers, worker)
        if (version, job, workers, member.worker) != expected:
            raise MismatchError(
                f"format, job, workers, worker are {(version, job, workers, member.worker)}, expected {expected}",
                file=path,
            )
        return member


def list_generations(names: Iterable[str], workers: int) -> dict[int, set[int]]:
    """Return for each generation which of the ``workers`` are in it. ``names``: those of the files in a job's
    folder."""
    generations: dict[int, set[int]] = {}
    for name in names:
        if (member := _NAME.fullmatch(name)) is not None and int(member[2]) < workers:
            generations.setdefault(int(member[1]), set()).add(int(member[2]))
    return generations


def member_file(generation: int, worker: int) -> str:
    """Return the name of a worker's file in a generation."""
    return f"generation-{generation:06d}-worker-{worker:06d}.json"


def numbers_text(workers: Sequence[int]) -> str:
    """Return ascending numbers for a sentence, consecutive ones as a range: 0-3, 5."""
    runs: list[list[int]] = []
    for worker in workers:
        if runs and worker == runs[-1][1] + 1:
            runs[-1][1] = worker
        else:
            runs.append([worker, worker])
    return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs) or "none"
