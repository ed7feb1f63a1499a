"""Follows a run for one tracker, in a separate thread: a server that is slow or gone must not hold training up."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable

from nnlib.core.events import Event, Listener, Note, RoundDone, RunDone, RunStarted
from nnlib.run.directory import RunDirectory
from nnlib.tracking.points import History
from nnlib.tracking.protocol import Point, Status, Tracker

LAST_SECONDS = 60.0
"""How long the end of a run waits for what is still to be written."""


class Follower:
    """A listener of `nnlib.core.events` that passes a run's points on to a tracker.

    Points come from committed rounds: those that the tracker lacks when a run is resumed are made up, none is written
    twice. A tracker that fails is reported once (``listen``, on the driver's thread) and then left alone.
    """

    def __init__(self, name: str, tracker: Tracker, listen: Listener) -> None:
        self._name, self._tracker, self._listen = name, tracker, listen
        self._events: queue.SimpleQueue[tuple[Event | Status, float]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, name=f"tracker {name}", daemon=True)
        self._failure: str | None = None
        self._history: History | None = None
        self._pending: list[tuple[int, float, float]] = []  # (round, time, seconds) done, but not known to be committed
        self._written: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._thread.start()
        if self._thread.is_alive() and isinstance(event, RunStarted | RoundDone | RunDone):
            self._events.put((event, time.time()))
        self._report_failure()

    def close(self, status: Status) -> None:
        """The end of the command: wait until all is written, or `LAST_SECONDS`."""
        if self._thread.ident is None:
            return
        self._events.put((status, time.time()))
        self._thread.join(LAST_SECONDS)
        if self._thread.is_alive():
            self._failure = f"still writing after {LAST_SECONDS:.0f} s; the rest is dropped"
        self._report_failure()

    def _report_failure(self) -> None:
        if self._failure is not None:
            text, self._failure = self._failure, None
            self._listen(Note(f"tracking.{self._name}: {text}; the run itself is not touched", "warning"))

    def _follow(self) -> None:
        try:
            while True:
                event, when = self._events.get()
                if isinstance(event, str):
                    self._tracker.end(event)
                    return
                self._pass_on(event, when)
        except Exception as error:  # whatever a tracker's package raises
            self._failure = f"{type(error).__name__}: {error}".splitlines()[0][:500]

    def _pass_on(self, event: Event, when: float) -> None:
        if isinstance(event, RunStarted):
            run = RunDirectory.open(event.run_dir)
            self._history = History(run)
            self._written = dict(self._tracker.begin(run))
            self._write(self._history.recorded(event.first_round))
            return
        assert self._history is not None
        if isinstance(event, RoundDone):
            self._pending.append((event.round, when, event.seconds))
        if self._events.empty() or isinstance(event, RunDone):  # a look into the storage for as many as there are
            known = self._history.committed()
            while self._pending and self._pending[0][0] in known:
                self._write(self._history.points(*self._pending.pop(0)))
        if isinstance(event, RunDone):
            self._write(self._history.final(when))

    def _write(self, points: Iterable[Point]) -> None:
        """What the tracker does not have yet of some points."""
        for point in points:
            new = {name: value for name, value in point.values.items() if self._written.get(name, -1) < point.epoch}
            if new:
                self._tracker.write(Point(point.epoch, point.time, new))
                self._written |= dict.fromkeys(new, point.epoch)
