"""A stream that hashes what goes through it."""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO


class HashedStream:
    """Counts and hashes all bytes on their way to another stream. What is written is appended: there is no seeking.

    ``bytes`` were written so far; ``digest`` is their SHA-256.
    """

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> int:
        """Write bytes."""
        self.digest.update(data)
        self.bytes += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.bytes

    def flush(self) -> None:
        """Flush the other stream."""
        self._stream.flush()

    def writable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return False."""
        return False

    def seekable(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """Do nothing: the code that opened the other stream closes it."""
