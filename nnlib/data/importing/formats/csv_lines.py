"""A stream of CSV text, line by line: without comments and lines of blanks, and with one space for runs of blanks."""

from __future__ import annotations

import codecs
import io
from typing import Any

from nnlib.data.importing.read_options import BLANKS, ReadOptions

_PART_BYTES = 1 << 20
_MOST_LINE_BYTES = 8 << 20


class LineStream(io.RawIOBase):
    """A stream that yields the lines of another one, as ``options`` ask for them; text in quotes stays as it is.

    Lines that begin with the mark of comments are left out, and so are lines without text if ``skips_blank_lines``.
    Where runs of blanks separate columns (`BLANKS`), each becomes one space, and there are none around a line.
    """

    def __init__(self, stream: Any, options: ReadOptions, *, skips_blank_lines: bool = False) -> None:
        self._stream = stream
        self._comment = (options.comment or "").encode()
        self._quote = options.quote.encode()
        self._joins = options.delimiter == BLANKS
        self._skips = skips_blank_lines or self._joins
        self._blanks = b" \t\r\n".replace((options.delimiter or ",").encode(), b"")
        self._is_quoted = False  # whether the next line begins inside quotes
        self._rest = b""  # a line that has not ended yet
        self._ready = b""
        self._is_first = True
        self._is_done = False

    def readable(self) -> bool:
        """Return True: bytes can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes and return their number, 0 at the end."""
        while not self._ready and not self._is_done:
            part: bytes = self._stream.read(_PART_BYTES)
            if self._is_first:
                part, self._is_first = part.removeprefix(codecs.BOM_UTF8), False
            self._is_done = not part
            lines = (self._rest + part).splitlines(keepends=True)
            self._rest = b""
            is_open = bool(lines) and not self._is_done and not lines[-1].endswith(b"\n")  # "\r" may go on with "\n"
            if is_open and len(lines[-1]) < _MOST_LINE_BYTES:
                self._rest = lines.pop()
            self._ready = b"".join(map(self._wanted, lines))
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _wanted(self, line: bytes) -> bytes:
        """Return a line as it is wanted, b"" for one that is left out."""
        if not self._is_quoted:
            if self._comment and line.lstrip(b" \t").startswith(self._comment):
                return b""
            if self._skips and not line.strip(self._blanks):
                return b""
        starts_quoted = self._is_quoted
        has_quote = bool(self._quote) and self._quote in line
        if has_quote and line.count(self._quote) % 2:
            self._is_quoted = not self._is_quoted
        if not self._joins or (starts_quoted and not has_quote):
            return line
        if not has_quote:
            return b" ".join(line.split()) + b"\n"
        return self._joined(line, starts_quoted)

    def _joined(self, line: bytes, is_quoted: bool) -> bytes:
        """Return a line with quotes in it, one space for each run of blanks outside of them."""
        pieces = line.split(self._quote)
        for number, piece in enumerate(pieces):
            if is_quoted == bool(number % 2):  # outside quotes
                before = b" " if piece[:1] in (b" ", b"\t") and number > 0 else b""
                after = b" " if piece[-1:] in (b" ", b"\t") and number < len(pieces) - 1 and piece.strip() else b""
                pieces[number] = before + b" ".join(piece.split()) + after
        return self._quote.join(pieces).rstrip(b" ") + (b"" if self._is_quoted else b"\n")
