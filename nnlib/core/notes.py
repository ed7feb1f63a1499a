"""What a person should know about work that went well: the code that notices it passes it on.

Code deep inside calls `note`. A command shows notes on standard error (`listening`); in Python they are warnings of the
class `NnjobsNote`, which ``warnings.filterwarnings`` can turn off.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[str], None]


class NnjobsNote(UserWarning):
    """The warning that a note is in Python, where no command listens."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def note(text: str) -> None:
    """Pass on one sentence, without a period at its end, to the listener; without one, warn."""
    listener = _listener.get()
    if listener is None:
        warnings.warn(text, NnjobsNote, stacklevel=3)
    else:
        listener(text)


def ignore(text: str) -> None:
    """Do nothing with a note: the listener of blocks whose notes are not for the user."""


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the notes of the block to ``listener``, each text once."""
    passed: set[str] = set()

    def once(text: str) -> None:
        if text not in passed:
            passed.add(text)
            listener(text)

    token = _listener.set(once)
    try:
        yield
    finally:
        _listener.reset(token)
