"""What the driver does about a group's tasks while its job runs: end those that hang, so that others take their places,
and end the job when not all of its workers come to run at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jobs.collective.membership import GIVEN_UP, give_up, given_up, open_folder
from jobs.mapreduce.launcher import JobSite
from nnlib.collective.rendezvous import list_generations
from nnlib.core.errors import JobError, StorageError
from nnlib.core.events import Event, Note
from nnlib.storage import Storage


class Teller(Protocol):
    """What is needed of the driver."""

    def tell(self, event: Event) -> None: ...

    def record_event(self, **facts: Any) -> None: ...


class GroupWatch:
    """``error`` says why the job was ended, if it was."""

    def __init__(
        self,
        driver: Teller,
        site: JobSite,
        place: Storage,
        folder: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the group's ``folder`` in the run directory ``place``."""
        self._driver, self._site, self._clock = driver, site, clock
        self._folder = open_folder(place, folder)
        self._losses = Losses(self._folder)
        self._deadline: float | None = None
        self.error: JobError | None = None

    def look(self) -> None:
        """Called now and then, while the job runs. Raises `StorageError`; the next look makes up for it."""
        names = self._folder.names()
        if self.error is None:
            self._expect_all(names)
        for loss in self._losses.confirmed(names):
            self._driver.record_event(event="lost", worker=loss.worker, generation=loss.generation, why=loss.why)
            self._driver.tell(Note(f"worker {loss.worker}: {loss.why}; the others wait for its replacement", "warning"))
            self._site.end_task(loss.worker, loss.attempt)

    def _expect_all(self, names: Sequence[str]) -> None:
        """Those who came give up by themselves when others do not; but where none came, only the driver can tell."""
        spec = self._site.spec
        if self._deadline is None and self._site.queued:
            self._deadline = self._clock() + spec.config.sync.gang_timeout_seconds
        late = self._deadline is not None and self._clock() > self._deadline
        if late and GIVEN_UP not in names and not list_generations(names, spec.workers):
            give_up(self._folder, (), range(spec.workers))
            names = self._folder.names()
        if GIVEN_UP in names:
            self.error = given_up(self._folder, spec)
            self._site.end_job()


COME_AGAIN_SECONDS = 2.0
"""For so long the driver waits whether a worker that others call lost meets them again."""


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
