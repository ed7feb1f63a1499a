"""The driver's part in collective mode: start the one job, and tell what it does while it runs.

The job's worker 0 commits the rounds; the driver holds the run's lock, follows what is written into the run directory
and ends what hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from jobs.group_record import STATUS, read_status
from jobs.outputs import TrialOutput
from jobs.progress import round_done
from jobs.rounds import JobSite
from nnlib.checkpoint import Checkpoint, RoundStore
from nnlib.errors import StorageError
from nnlib.events import Event, RoundDone, TrialStopped
from nnlib.lock import current_lease
from nnlib.plan import JobSpec

FOLLOW_SECONDS = 0.5
"""How often the driver looks what the job has written."""


class Teller(Protocol):
    """What is needed of the driver."""

    def tell(self, event: Event) -> None: ...

    def record_event(self, **facts: Any) -> None: ...

    def renew_view(self, store: RoundStore) -> None: ...


def run_collective(driver: Teller, site: JobSite, store: RoundStore, start: Checkpoint) -> dict[int, TrialOutput]:
    """Train from the newest commit to the end; returns the scores of the last models, as a job that scores does."""
    everyone = range(len(site.spec.trials))
    store.storage.delete(STATUS)
    lease = current_lease(store.storage)
    follower = Follower(driver, site.spec, store, start)
    with follower.following():
        return site.run("collective", start.round, everyone, run_dir=store.storage.root, lock=lease)


class Follower:
    """Tells each round once, in order, when a status or a commit tells of it."""

    def __init__(self, driver: Teller, spec: JobSpec, store: RoundStore, start: Checkpoint) -> None:
        self._driver, self._spec, self._store = driver, spec, store
        self._told = start.round
        self._ended = threading.Event()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Look now and then while the block runs, and once when it has ended."""
        thread = threading.Thread(target=self._follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self.look(last=True)

    def _follow(self) -> None:
        while not self._ended.wait(FOLLOW_SECONDS):
            self.look()

    def look(self, *, last: bool = False) -> None:
        """Tell what is new. A storage that hiccups is asked again."""
        try:
            storage = self._store.storage
            status = read_status(storage.read(STATUS)) if storage.exists(STATUS) else None
            if status is not None:
                self._tell(status)
                self._driver.renew_view(self._store)
            if last:
                self._tell_committed(self._store.newest())
        except StorageError:
            return

    def _tell(self, status: dict[str, Any]) -> None:
        for facts in status["rounds"]:
            round_ = facts["done"]["round"]
            if round_ > self._told + 1:  # a status that came and went between two looks
                self._tell_committed(min(round_ - 1, status["committed"]))
            if round_ != self._told + 1:
                continue  # told before the group met again, or to be told when it is committed
            for stopped in facts["stopped"]:
                self._driver.tell(TrialStopped(**stopped))
            self._driver.record_event(event="round", **facts["journal"])
            metric = facts["done"]["test_metric"]
            self._driver.tell(RoundDone(**{**facts["done"], "test_metric": None if metric is None else tuple(metric)}))
            self._told = round_

    def _tell_committed(self, newest: int) -> None:
        """Tell rounds from their metrics, which know no times."""
        for round_ in range(self._told + 1, newest + 1):
            metrics = self._store.metrics(round_)
            for entry in metrics["trials"]:
                if entry["status"] != "active":
                    self._driver.tell(TrialStopped(entry["trial"], entry["split"], round_ - 1, entry["status"]))
            self._driver.tell(round_done(self._spec.config, metrics, 0.0))
            self._told = round_
