"""Standard output as a stream of bytes, for commands that write a file there."""

from __future__ import annotations

import io
import sys
from typing import BinaryIO, cast

from nnlib.core.errors import StorageError


def binary_output() -> BinaryIO:
    """Return a stream of bytes to what ``sys.stdout`` is now. Raises `StorageError` where there is none.

    Errors of the stream are `StorageError`s, but for a reader that has gone (`BrokenPipeError`), which ends a command
    without an error.
    """
    if sys.stdout is None or sys.stdout.closed:
        raise StorageError("there is no standard output", hint="name a file with -o")
    sys.stdout.flush()
    return cast(BinaryIO, _Output())


class _Output(io.RawIOBase):
    def __init__(self) -> None:
        self._text = sys.stdout
        self._bytes = getattr(sys.stdout, "buffer", None)  # a program that embeds us may have put a text stream there

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write bytes; all of them."""
        try:
            if self._bytes is None:
                self._text.write(data.decode())
            else:
                self._bytes.write(data)
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            raise _failed(error) from error
        return len(data)

    def flush(self) -> None:
        """Hand over what is buffered."""
        try:
            self._text.flush()
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            raise _failed(error) from error


def _failed(error: Exception) -> StorageError:
    return StorageError(f"cannot write standard output: {getattr(error, 'strerror', None) or error}")
