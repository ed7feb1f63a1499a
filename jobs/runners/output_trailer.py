"""Ends a task's output with a line that shows whether it is whole: it has the size and the CRC of all bytes before it.

An exit code says that a process ended well, not that its file holds everything it wrote. Hadoop checks what it moves
between tasks; this does it between processes on one machine, also for a file that was cut exactly between two lines.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import BinaryIO

_SEAL = re.compile(rb"!end\t(\d{1,20})\t([0-9a-f]{8})\n")
_LONGEST = len(b"!end\t\t\n") + 20 + 8
_CHUNK = 1 << 20


class SealedStream:
    """Writes through to ``stream``, and at the end a line with the number of bytes and their CRC-32."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._bytes = 0
        self._checksum = 0

    def write(self, data: bytes) -> int:
        """Write bytes and count them."""
        self._bytes += len(data)
        self._checksum = zlib.crc32(data, self._checksum)
        return self._stream.write(data)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def seal(self) -> None:
        """Write the last line; call once, when everything is written."""
        self._stream.write(b"!end\t%d\t%08x\n" % (self._bytes, self._checksum))
        self._stream.flush()


def unseal(path: Path) -> bool:
    """Remove the last line of a sealed file; return False, with nothing changed, if the file is not whole."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST))
        seal = _SEAL.search(file.read())
        if seal is None:
            return False
        length, checksum = int(seal[1]), int(seal[2], 16)
        if seal.end() + max(0, size - _LONGEST) != size or length != size - len(seal[0]):
            return False
        file.seek(0)
        checksum_so_far, left = 0, length
        while left and (chunk := file.read(min(_CHUNK, left))):
            checksum_so_far = zlib.crc32(chunk, checksum_so_far)
            left -= len(chunk)
        if left or checksum_so_far != checksum:
            return False
        file.truncate(length)
    return True
