"""Signals that ask a program to end: they are handled as Ctrl-C is, or deferred while something must be finished."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

WANTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and the end of the terminal."""

Handler = Callable[[int, FrameType | None], None]


def forget(number: int, frame: FrameType | None) -> None:
    """Ignore a signal, because what it asks for is being done.

    SIG_IGN will not do: Python complains about a pending signal whose handler is SIG_IGN, and programs that are started
    meanwhile would inherit it.
    """


def interrupt(number: int, frame: FrameType | None) -> None:
    """End a command as Ctrl-C does: committed rounds are kept, tasks end, the line that resumes is shown."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def interrupted_by_signals(handler: Handler = interrupt) -> Iterator[None]:
    """Let the signals of `WANTED` call ``handler`` while the block runs.

    A signal that was ignored when this process started stays ignored, as ``nohup`` and a script's ``command &`` want.
    In another thread than the main one, which alone can handle signals, nothing is changed.
    """
    with _handled_by(handler):
        yield


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore signals that ask to end while the block runs, for example an impatient second Ctrl-C.

    A signal mask would not do: another thread of the process would receive the signal, and Python raises it in the main
    thread.
    """
    with _handled_by(forget):
        yield


@contextlib.contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # no interrupt is raised here
        return
    before = {}
    try:
        for number in WANTED:
            known = signal.getsignal(number)
            # None: of a program in another language that embeds us. It could not be put back.
            if known is not None and known != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)
