"""What this process waits for: the code that waits names it, the command that runs says so when it takes long.

Code deep inside says ``with waiting_for("HDFS at m0:8020") as wait: ...``. A command reports waits that last
(`waits_reported_to`), from whatever thread they come; in Python without a command nothing is reported.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

FIRST_SECONDS = 5.0
"""A wait is reported when it has lasted for this time."""
CHANGE_SECONDS = 5.0
"""A wait whose text changes is reported again at the earliest after this time."""
AGAIN_SECONDS = 30.0
"""A wait that has not changed is reported again after this time."""
CHECK_SECONDS = 0.5
"""How often waits are looked at."""


class WaitReport(NamedTuple):
    """A wait: what it is for, how many seconds it has lasted, and whether it is over. ``what`` is "" where the end of a
    wait needs no line, because what follows shows it."""

    what: str
    seconds: float
    is_over: bool = False


Listener = Callable[[WaitReport], None]


class Wait:
    """Something that this process waits for. ``what`` may change while it lasts; ``reports_end``: its end is worth a
    line, because nothing else shows it."""

    def __init__(self, what: str, *, reports_end: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.reports_end = what, reports_end
        self._clock = clock
        self._since = clock()
        self._reported: tuple[str, float] | None = None

    @property
    def seconds(self) -> float:
        """How long the wait has lasted."""
        return self._clock() - self._since

    @property
    def was_reported(self) -> bool:
        """Whether the wait has been reported since it began."""
        return self._reported is not None

    def restart(self, what: str) -> None:
        """Begin to wait for something else: the time counts from now."""
        self.what, self._since, self._reported = what, self._clock(), None

    def report(self) -> WaitReport | None:
        """Return what is to be reported now; None if it is too early to report, or to repeat what was reported."""
        now = self._clock()
        if not self.what or now - self._since < FIRST_SECONDS:
            return None
        if self._reported is not None:
            text, at = self._reported
            if now - at < (AGAIN_SECONDS if text == self.what else CHANGE_SECONDS):
                return None
        self._reported = (self.what, now)
        return WaitReport(self.what, now - self._since)


_WAITS: dict[int, Wait] = {}
_LISTENERS: list[Listener] = []
_CHANGING = threading.RLock()
_watcher: threading.Thread | None = None


@contextlib.contextmanager
def waiting_for(what: str, *, reports_end: bool = False) -> Iterator[Wait]:
    """Name what the block waits for. ``what`` is a text for people; "" as long as there is nothing to say."""
    wait = Wait(what, reports_end=reports_end)
    with _CHANGING:
        _WAITS[id(wait)] = wait
        if _LISTENERS:
            _start_watcher()
    try:
        yield wait
    finally:
        with _CHANGING:
            _WAITS.pop(id(wait), None)
            listener = _LISTENERS[-1] if _LISTENERS else None
        if wait.was_reported and listener is not None:
            listener(WaitReport(wait.what if reports_end else "", wait.seconds, is_over=True))


@contextlib.contextmanager
def waits_reported_to(listener: Listener) -> Iterator[None]:
    """Report waits of all threads to ``listener`` while the block runs; an inner block's listener gets them instead.

    The listener is called from any thread, and must not raise.
    """
    with _CHANGING:
        _LISTENERS.append(listener)
        if _WAITS:
            _start_watcher()
    try:
        yield
    finally:
        with _CHANGING:
            _LISTENERS.remove(listener)


def current_waits(*, longer_than: float = FIRST_SECONDS) -> list[WaitReport]:
    """Return what this process has waited for longer than ``longer_than`` seconds, the longest first."""
    with _CHANGING:
        reports = [WaitReport(wait.what, wait.seconds) for wait in _WAITS.values() if wait.what]
    return sorted((each for each in reports if each.seconds > longer_than), key=lambda each: -each.seconds)


def wait_line(report: WaitReport) -> str:
    """Return the line for people about a wait that lasts, or that is over."""
    if report.is_over:
        return f"waited {report.seconds:.0f} s: {report.what}"
    return f"{report.what} ({report.seconds:.0f} s)"


def _start_watcher() -> None:
    """Start the thread that looks at waits; it ends when nobody listens. Call under `_CHANGING`."""
    global _watcher
    if _watcher is None or not _watcher.is_alive():
        _watcher = threading.Thread(target=_watch, name="waits", daemon=True)
        _watcher.start()


def _watch() -> None:
    global _watcher
    while True:
        time.sleep(CHECK_SECONDS)
        with _CHANGING:
            if not _LISTENERS:
                _watcher = None
                return
            listener = _LISTENERS[-1]
            reports = [report for wait in _WAITS.values() if (report := wait.report()) is not None]
        for report in reports:
            listener(report)


def _begin_anew() -> None:
    """Forget, in a forked process, the waits and the thread of the process that it was forked from."""
    global _CHANGING, _watcher
    _CHANGING, _watcher = threading.RLock(), None
    _WAITS.clear()
    _LISTENERS.clear()


os.register_at_fork(after_in_child=_begin_anew)
