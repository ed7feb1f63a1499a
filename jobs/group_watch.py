"""What the driver does about a group's tasks while its job runs: end those that hang, so that others take their places,
and end the job when not all of its workers come to run at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from jobs.group_meeting import Losses, give_up, not_all_came, open_folder
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
        self._met = False
        self.error: JobError | None = None

    def look(self) -> None:
        """Called now and then, while the job runs. Raises `StorageError`; the next look makes up for it."""
        if not self._met:
            self._expect_all()
        for loss in self._losses.confirmed():
            self._driver.record_event(event="lost", worker=loss.worker, generation=loss.generation, why=loss.why)
            self._driver.tell(Note(f"worker {loss.worker}: {loss.why}; the others wait for its replacement", "warning"))
            self._site.end_task(loss.worker, loss.attempt)

    def _expect_all(self) -> None:
        """The tasks that came wait no longer than this themselves; but where none came, only the driver can tell."""
        spec = self._site.spec
        if self._deadline is None and self._site.submitted:
            self._deadline = self._clock() + spec.config.sync.gang_timeout_seconds
        if self._deadline is None or self._clock() < self._deadline or self.error is not None:
            return
        came = max(standing(self._folder.names(), spec.workers).values(), key=len, default=set())
        if len(came) == spec.workers:
            self._met = True
            return
        missing = set(range(spec.workers)) - came
        give_up(self._folder, came, missing)
        self.error = not_all_came(spec, came, missing)
        self._site.end_job()
