"""Defers Ctrl-C and SIGTERM while something must be finished."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

WANTED = (signal.SIGINT, signal.SIGTERM)


def forget(number: int, frame: object) -> None:
    """Ignore a signal, because what it asks for is being done.

    SIG_IGN will not do: Python complains about a pending signal whose handler is SIG_IGN, and programs that are started
    meanwhile would inherit it.
    """


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore signals that ask to end while the block runs, for example an impatient second Ctrl-C.

    A signal mask would not do: another thread of the process would receive the signal, and Python raises it in the main
    thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no interrupt is raised here
        return
    before = {number: signal.signal(number, forget) for number in WANTED}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # a handler of a program that embeds nnjobs
                signal.signal(number, handler)
