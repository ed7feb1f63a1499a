"""Keeps ``status.json`` of a running run, and looks for requests to end it: one thread of the driver does both."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

from jobs.driver.cancellation import Cancellation
from jobs.runners.session import Session
from nnlib.config.schema import Config
from nnlib.core.errors import NnjobsError, StorageError
from nnlib.core.events import Event, GroupProgress, PhaseStarted, RoundDone, RunStarted, WorkerProgress
from nnlib.core.waiting import current_waits
from nnlib.run.cancel_request import forget_requests
from nnlib.run.driver_status import FAILED, FINISHED, INTERRUPTED, DriverStatus, write_driver_status
from nnlib.run.lease import current_lease
from nnlib.storage import Storage

RECENT_ROUNDS = 32
"""The time left follows from the speed of this many rounds."""
LEAST_SECONDS = 30.0
"""A status that has not changed is written anew after this time: it shows that the driver lives."""
SHOWN_WAIT_SECONDS = 2.0
"""What the driver waits for is in the status after this time."""
STOP_SECONDS = 5.0
"""How long the end of the driver waits for the thread, which a storage that is away may hold up."""


class StatusKeeper:
    """Shows what a driver does while the block runs, and how it ended. Its lease must be held.

    A listener of the driver's events. A run of less than `Storage.status_seconds` that ends well writes no status.
    """

    def __init__(self, run: Storage, config: Config, *, is_new: bool) -> None:
        """``run``: the run directory; ``is_new``: whether no earlier driver can have written a status."""
        self._run = run
        lease, now = current_lease(run), time.time()
        self.cancellation = Cancellation(run, lease)
        self._changing = threading.RLock()
        self._status = DriverStatus(
            lease=lease,
            host=platform.node(),
            process=os.getpid(),
            began=now,
            time=now,
            runner=config.runtime.runner,
            mode=config.sync.mode,
            worker_count=config.workers,
        )
        self._session: Session | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT_ROUNDS)
        self._written: DriverStatus | None = None
        self._written_at = time.monotonic()
        self._was_written = not is_new
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="status", daemon=True)
        if not is_new:
            forget_requests(run, lease)

    def attach(self, session: Session) -> None:
        """Take from now on the running job and its application from the session."""
        self._session = session

    def __enter__(self) -> StatusKeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self.cancellation.is_closed = True
        self._thread.join(STOP_SECONDS)
        if error is None and not self._was_written:
            return
        if isinstance(error, StorageError) and self._run.is_remote:
            return  # it would be waited for once more
        with contextlib.suppress(StorageError):
            write_driver_status(self._run, self._end(error))

    def __call__(self, event: Event) -> None:
        """Take from an event what it says of the run. Called from any thread."""
        now = time.time()
        with self._changing:
            match event:
                case RunStarted():
                    self._recent.append((now, event.first_epoch))
                    self._change(
                        round=event.first_round,
                        rounds=event.rounds,
                        epoch=event.first_epoch,
                        epochs=event.epochs,
                        committed=event.first_round,
                    )
                case RoundDone():
                    self._recent.append((now, event.epoch))
                    self._change(round=event.round, epoch=event.epoch, phase=None, seconds_left=self._left(event))
                case PhaseStarted():
                    self._change(phase=event.text, workers=())
                case GroupProgress():
                    self._change(workers=event.workers)

    def note_commit(self, round_: int) -> None:
        """Note that a round is committed."""
        with self._changing:
            if round_ > self._status.committed:
                self._change(committed=round_, committed_time=time.time())

    def note_workers(self, workers: Sequence[WorkerProgress]) -> None:
        """Note what the workers did in the newest round."""
        with self._changing:
            self._change(workers=tuple(workers))

    def _change(self, **facts: object) -> None:
        self._status = replace(self._status, **facts)  # type: ignore[arg-type]

    def _left(self, event: RoundDone) -> float | None:
        """The seconds that are left, by the speed of the recent rounds."""
        (began, first), (ended, last) = self._recent[0], self._recent[-1]
        if last <= first:
            return None
        return (ended - began) / (last - first) * max(0, event.epochs - event.epoch)

    def _keep(self) -> None:
        while not self._ended.wait(self._run.poll_seconds):
            with contextlib.suppress(NnjobsError):  # the next turn makes up for it
                self.cancellation.check()
            with contextlib.suppress(NnjobsError):
                self._write_if_due()

    def _write_if_due(self) -> None:
        waited = time.monotonic() - self._written_at
        if waited < self._run.status_seconds:
            return
        status = self._now()
        if self._written is not None and waited < LEAST_SECONDS and _is_same(status, self._written):
            return
        self._written_at = time.monotonic()
        write_driver_status(self._run, status)
        self._written, self._was_written = status, True

    def _now(self) -> DriverStatus:
        session = self._session
        with self._changing:
            return replace(
                self._status,
                time=time.time(),
                waits=tuple(current_waits(longer_than=SHOWN_WAIT_SECONDS)),
                application=None if session is None else session.application,
                job=None if session is None else session.job,
                task_folder=None if session is None else session.task_folder,
            )

    def _end(self, error: BaseException | None) -> DriverStatus:
        """The status of a driver that has ended, with ``error`` if it failed."""
        status = replace(self._status, time=time.time(), workers=(), seconds_left=None)
        if error is None:
            return replace(status, state=FINISHED, exit_code=0)
        if isinstance(error, KeyboardInterrupt):
            request = self.cancellation.request
            reason = "Ctrl-C or a signal" if request is None else f"nnjobs cancel by {request.text()}"
            return replace(status, state=INTERRUPTED, reason=reason, exit_code=130)
        text = (str(error).splitlines() or [""])[0]
        if isinstance(error, NnjobsError):
            return replace(status, state=FAILED, reason=text, exit_code=error.exit_code)
        return replace(status, state=FAILED, reason=f"unexpected {type(error).__name__}: {text}", exit_code=1)


def _is_same(one: DriverStatus, other: DriverStatus) -> bool:
    """Whether two statuses say the same but for times."""
    waits = [tuple(wait.what for wait in status.waits) for status in (one, other)]
    return waits[0] == waits[1] and replace(one, time=0.0, waits=()) == replace(other, time=0.0, waits=())
