"""The driver's part in collective mode: start the one job, and tell what it does while it runs.

The job's worker 0 commits the rounds; the driver holds the run's lock, follows what is written into the run directory
and ends what hangs.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from jobs.collective.background_committer import STATUS, read_status
from jobs.collective.request import Group
from jobs.mapreduce.launcher import JobSite
from nnlib.core.errors import JobError, NnjobsError, StorageError
from nnlib.core.events import Event, GroupSeen, Note, RoundDone, TrialStopped, WorkerSeen
from nnlib.run.checkpoint import ROUNDS, Checkpoint, RoundStore
from nnlib.run.directory import GROUP
from nnlib.run.lease import current_lease
from nnlib.run.spec import JobSpec
from nnlib.training.round_events import round_done
from nnlib.training.round_result import TrialOutput

GROUP_SECONDS = 20.0
"""How often the driver tells how the workers get on."""
FOLLOW_SECONDS = 0.5
"""How often the driver looks what the job has written; half as often where a NameNode has to answer."""


class Teller(Protocol):
    """What is needed of the driver."""

    def tell(self, event: Event) -> None: ...

    def record_event(self, **facts: Any) -> None: ...

    def renew_view(self, store: RoundStore) -> None: ...


def run_collective(
    driver: Teller, site: JobSite, store: RoundStore, start: Checkpoint
) -> dict[int, TrialOutput] | None:
    """Train from the newest commit to the end; returns the scores of the last models, as a job that scores does.

    None where not all workers came to run at once and ``sync.gang_fallback`` says to go on in rounds mode: from the
    newest commit, which may be a later one by then.
    """
    place, everyone = store.storage, range(len(site.spec.trials))
    group = Group(place.root, f"{GROUP}/{secrets.token_hex(4)}", current_lease(place))
    watch = None
    if site.spec.workers > 1 and site.spec.config.runtime.runner != "inline":
        from jobs.collective.failure_detector import (
            GroupWatch,  # late: pyzmq takes 0.1 s, and a group in one process needs none
        )

        watch = GroupWatch(driver, site, place, group.folder)
    follower = Follower(driver, site.spec, store, start, None if watch is None else watch.look)
    whole = False
    try:
        with follower.following():
            outputs = site.run("collective", start.round, everyone, group=group)
        whole = follower.generation == 1
        return outputs
    except KeyboardInterrupt:
        with contextlib.suppress(NnjobsError):
            every = site.spec.config.checkpoint.every
            driver.tell(Note(f"the newest commit is of round {store.newest()} (checkpoint.every: {every})", "warning"))
        raise
    except JobError as failed:
        error = failed if watch is None or watch.error is None else watch.error
        if "slots" not in error.where or site.spec.config.sync.gang_fallback != "rounds":
            raise error from None
        driver.tell(Note(f"{error.message}; going on in rounds mode from round {store.newest()}", "warning"))
        return None
    finally:
        # A storage that is away must not hide how the job ended; who goes on with the run deletes it, too.
        with contextlib.suppress(StorageError):
            place.delete(GROUP)
            if not whole:
                place.sweep(ROUNDS)  # worker 0 may have been lost in the midst of a commit


class Follower:
    """Tells each round once, in order, when a status or a commit tells of it."""

    def __init__(
        self, driver: Teller, spec: JobSpec, store: RoundStore, start: Checkpoint, watch: Callable[[], None] | None
    ) -> None:
        """``watch`` is called at every look; None for a group in one process: its workers take turns, so who waits, and
        for whom, says nothing of them."""
        self._driver, self._spec, self._store, self._watch = driver, spec, store, watch
        self.generation = 1
        """How many times the group has met, as far as is known."""
        self._told = start.round
        self._group_told = time.monotonic()
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
        remote = "://" in self._store.storage.root
        while not self._ended.wait(2 * FOLLOW_SECONDS if remote else FOLLOW_SECONDS):
            self.look()

    def look(self, *, last: bool = False) -> None:
        """Tell what is new. A storage that hiccups is asked again."""
        try:
            storage = self._store.storage
            if self._watch is not None:
                self._watch()
            status = read_status(storage.read(STATUS)) if storage.exists(STATUS) else None
            if status is not None:
                self.generation = status["generation"]
                self._tell(status)
                self._tell_group(status, last)
                self._driver.renew_view(self._store)
            if last:
                self._tell_committed(self._store.newest())
        except NnjobsError:
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

    def _tell_group(self, status: dict[str, Any], last: bool) -> None:
        """Tell how the workers get on, from time to time."""
        if self._watch is None:
            return
        if last or time.monotonic() - self._group_told >= GROUP_SECONDS:
            self._group_told = time.monotonic()
            workers = tuple(WorkerSeen(**worker) for worker in status["workers"])
            self._driver.tell(GroupSeen(status["round"], status["seconds"], workers))

    def _tell_committed(self, newest: int) -> None:
        """Tell rounds from their metrics, which know no times."""
        for round_ in range(self._told + 1, newest + 1):
            metrics = self._store.metrics(round_)
            for entry in metrics["trials"]:
                if entry["status"] != "active":
                    self._driver.tell(TrialStopped(entry["trial"], entry["split"], round_ - 1, entry["status"]))
            self._driver.tell(round_done(self._spec.config, metrics, 0.0))
            self._told = round_
