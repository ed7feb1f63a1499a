"""How far long work is: the code that does it reports it, the command that started it shows it.

Code deep inside says ``with progressing("predicting", rows) as advance: ... advance(done)``. A command shows that
(`progress_shown_by`); in Python nothing is shown.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple, Protocol


class Progress(NamedTuple):
    """How far some work is. ``total`` None: nobody knows yet. ``unit``: what is counted, in the plural.

    A tuple, because every command imports this, and dataclasses take a millisecond and a half to import.
    """

    what: str
    done: int
    total: int | None
    unit: str


class Advance(Protocol):
    """Reports how much is done."""

    def __call__(self, done: int, total: int | None = None, /) -> None:
        """``total``: of how much, where that is known only now."""
        ...


Listener = Callable[[Progress | None], None]
"""Gets the progress of the work that runs, and None at its end."""

_listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)


@contextlib.contextmanager
def progressing(what: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
    """Report the progress of the block's work through the function that it gets.

    Args:
        what: the work, as in "predicting".
        total: how much there is to do; None: that is not known.
        unit: what is counted.
    """
    listener = _listener.get()
    known = total

    def advance(done: int, total: int | None = None) -> None:
        if listener is not None:
            listener(Progress(what, done, known if total is None else total, unit))

    try:
        yield advance
    finally:
        if listener is not None:
            listener(None)


@contextlib.contextmanager
def repeated(advance: Advance, done: int, seconds: float = 1.0) -> Iterator[None]:
    """Report the same again and again, from a thread, while the block makes one long call that reports nothing."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            advance(done)

    thread = threading.Thread(target=repeat, daemon=True)
    advance(done)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def progress_shown_by(listener: Listener | None) -> Iterator[None]:
    """Send the progress of the block's work to ``listener``; None: to nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
