"""Ctrl-C and SIGTERM while something must be done to its end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

WANTED = (signal.SIGINT, signal.SIGTERM)


def forget(number: int, frame: object) -> None:
    """A handler for signals that ask for what is being done already. Not SIG_IGN: Python complains of a signal that has
    come already and finds it, and programs that are started meanwhile would inherit it."""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """An impatient second Ctrl-C is forgotten. A mask would not do: another thread of the process would take it, and
    Python raises it in the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no interrupt is raised here
        return
    before = {number: signal.signal(number, forget) for number in WANTED}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one of a program that embeds us
                signal.signal(number, handler)
