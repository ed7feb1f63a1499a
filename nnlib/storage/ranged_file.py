"""A file that is read by ranges of bytes."""

from __future__ import annotations

import io


class RangedFile(io.RawIOBase):
    """A file of ``size`` bytes and a position in it, ``offset``; a subclass reads there. Use it buffered."""

    def __init__(self, size: int) -> None:
        self.size, self.offset = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.offset, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError("a position before the file")
        self.offset = start + offset
        return self.offset

    def left(self, most: int) -> int:
        """Return how many bytes there are behind the position, at most ``most``."""
        return max(0, min(most, self.size - self.offset))
