"""What the driver does about a group's tasks while its job runs: end those that hang, so that others take their places,
and end the job when not all of its workers come to run at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from jobs.group_meeting import GIVEN_UP, Losses, give_up, given_up, open_folder
from jobs.rounds import JobSite
from nnlib.collective.rendezvous import standing
from nnlib.errors import JobError
from nnlib.events import Event, Note
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
        if late and GIVEN_UP not in names and not standing(names, spec.workers):
            give_up(self._folder, (), range(spec.workers))
            names = self._folder.names()
        if GIVEN_UP in names:
            self.error = given_up(self._folder, spec)
            self._site.end_job()
