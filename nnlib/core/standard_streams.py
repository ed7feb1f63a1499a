"""Standard streams that a program can rely on, whatever the shell or an embedding program did to them."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SPELLED = {
    "±": "+-",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "·": ".",
    "×": "x",
    "µ": "u",
    "²": "^2",
    "█": "#",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "•": "*",
    "“": '"',
    "”": '"',
}
"""How our own signs are written where the terminal's encoding lacks them. Other characters become ``\\xe9``."""

ERRORS = "nnjobs-readable"
"""The name of our handler of encoding errors."""

NOBODY_READS = (errno.EPIPE, errno.EIO)
"""The reader of a pipe has ended (``| head``); the terminal was closed."""


def open_missing_descriptors() -> None:
    """Open the null device as each of the descriptors 0, 1 and 2 that is closed.

    Otherwise the next file that is opened would get that number, and what is written to standard output or to standard
    error, also by a child process, would get into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:  # another thread has closed a descriptor meanwhile
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)


class StandardStreams:
    """The streams while `standard_streams` holds."""

    def __init__(self) -> None:
        self._outputs: list[_Output] = []

    def flush(self) -> OSError | None:
        """Write what is buffered. Return why some of standard output could not be written, None if all was.

        A reader that has gone wants no more, so that is no reason.
        """
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        return next((output.failure for output in self._outputs if output.number == 1 and output.failure), None)


@contextlib.contextmanager
def standard_streams() -> Iterator[StandardStreams]:
    """Make `sys.stdin`, `sys.stdout` and `sys.stderr` fit for any use while the block runs.

    A missing or closed stream becomes the null device. A character that the encoding lacks is spelled in ASCII. What
    cannot be written to a descriptor is dropped, so that a command does its work to the end although the reader of its
    messages has gone or the disk is full; `StandardStreams.flush` reports the loss. Streams of an embedding program,
    such as a ``StringIO``, stay.
    """
    open_missing_descriptors()
    codecs.register_error(ERRORS, _spelled)
    streams = StandardStreams()
    with contextlib.ExitStack() as stack:
        for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
            _replace(name, number, streams._outputs, stack)
        yield streams


def _replace(name: str, number: int, outputs: list[_Output], stack: contextlib.ExitStack) -> None:
    """Put a fit stream in the place of ``sys.NAME``, and back at the end of ``stack``."""
    old: TextIO | None = getattr(sys, name)
    if old is None or getattr(old, "closed", False):
        mode = "r" if number == 0 else "w"
        new = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115  (closed by the stack)
        stack.enter_context(new)
    elif number == 0 or not isinstance(old, io.TextIOWrapper):
        return
    elif _descriptor(old) != number:
        stack.callback(_set_errors, old, old.errors)
        _set_errors(old, ERRORS)
        return
    else:
        _try_to_flush(old)
        output = _Output(number, f"<{name}>")
        outputs.append(output)
        new = io.TextIOWrapper(
            io.BufferedWriter(output),
            encoding=old.encoding,
            errors=ERRORS,
            newline="\n",
            line_buffering=old.line_buffering,
            write_through=old.write_through,
        )
        stack.callback(_try_to_flush, new)
    setattr(sys, name, new)

    def put_back() -> None:
        if getattr(sys, name) is new:
            setattr(sys, name, old)

    stack.callback(put_back)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _set_errors(stream: io.TextIOWrapper, errors: str | None) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        stream.reconfigure(errors=errors)


def _try_to_flush(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.flush()


class _Output(io.FileIO):
    """The descriptor of a standard stream, to which a write never fails. ``failure``: why something was not written."""

    def __init__(self, number: int, name: str) -> None:
        super().__init__(number, "wb", closefd=False)
        self.name = name
        self.number = number
        self.failure: OSError | None = None
        self._drops = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of the bytes, or drop them all; return how many."""
        size = memoryview(data).nbytes
        while not self._drops:
            try:
                written = cast("int | None", super().write(data))
            except OSError as error:
                self._drops = True
                if error.errno not in NOBODY_READS:
                    self.failure = error
                break
            if written is not None:
                return written
            select.select([], [self], [])  # another program has made this pipe non-blocking, and it is full
        return size


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace the first character that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not in the system's encoding
        return bytes([ord(character) - 0xDC00]), error.start + 1
    spelled = SPELLED.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")
    return spelled, error.start + 1
