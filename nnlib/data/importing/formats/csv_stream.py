"""CSV files as streams of UTF-8 text: decompressed, decoded, without lines that do not count."""

from __future__ import annotations

import codecs
import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nnlib.core.errors import DataError, UsageError
from nnlib.data.importing.compression import READ_ERRORS, compression_of, open_plain, read_head, zip_members
from nnlib.data.importing.formats.csv_lines import LineStream
from nnlib.data.importing.read_options import BLANKS, ReadOptions

STREAM_ERRORS = (*READ_ERRORS, pa.ArrowException, UnicodeError)
"""The errors that reading a stream of `open_text` may raise."""

_PART_BYTES = 1 << 20
_MARKS = (
    (codecs.BOM_UTF8, None),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order mark -> the codec that reads what it begins; None: UTF-8, whose mark Arrow skips."""

_BINARY = {b"PAR1": "parquet", b"\x93NUMPY": "npy", b"ARROW1": "arrow", b"\x89HDF": "hdf5", b"SQLite": "sqlite"}


@dataclass(frozen=True)
class CsvText:
    """One text of rows: a file, or the ``member`` of a zip archive."""

    file: str
    member: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.file if self.member is None else f"{self.file}:{self.member}"


def texts_of(file: str) -> list[CsvText]:
    """Return the texts of a file: itself, or the CSV files in a zip archive, by name.

    Raises `DataError` for an archive without them, and for a file that is none of text.
    """
    head = read_head(file)
    for magic, name in _BINARY.items():
        if head.startswith(magic):
            raise DataError(f"is no text: it looks like a {name} file", hint="name its format with --format", file=file)
    if compression_of(head) != "zip":
        return [CsvText(file)]
    names = zip_members(file)
    chosen = [name for name in names if name.lower().endswith((".csv", ".tsv"))] or [
        name for name in names if name.lower().endswith((".txt", ".data", ".dat")) or len(names) == 1
    ]
    if not chosen:
        shown = ", ".join(names[:10]) or "nothing"
        raise DataError(f"the zip archive holds no CSV file, but {shown}", hint="unpack it first", file=file)
    return [CsvText(file, name) for name in chosen]


@contextlib.contextmanager
def open_text(text: CsvText, options: ReadOptions, *, skips_blank_lines: bool = False) -> Iterator[Any]:
    """Open a text as a stream of Arrow that yields UTF-8, for the block.

    Comments are left out, and lines of blanks if ``skips_blank_lines``; `BLANKS` between columns are single spaces.

    Raises `DataError` if it cannot be opened; reading may raise `STREAM_ERRORS`.
    """
    with open_plain(text.file, text.member) as plain:
        codec = text_codec(text, options)
        stream = plain if codec is None else pa.transcoding_input_stream(plain, codec, "utf-8")
        if not (options.comment or skips_blank_lines or options.delimiter == BLANKS):
            yield stream
            return
        lines = io.BufferedReader(LineStream(stream, options, skips_blank_lines=skips_blank_lines), _PART_BYTES)
        yield pa.PythonFile(lines, mode="r")


def text_codec(text: CsvText, options: ReadOptions) -> str | None:
    """Return the codec that decodes a text, by its byte order mark or the options; None for UTF-8.

    Raises `UsageError` for a codec that Python does not know.
    """
    try:
        with open_plain(text.file, text.member) as plain:
            head: bytes = plain.read(4)
    except STREAM_ERRORS as error:
        raise DataError(f"is not readable ({error})", file=text.name) from None
    for mark, codec in _MARKS:
        if head.startswith(mark):
            return codec
    if options.encoding is None:
        return None
    try:
        known = codecs.lookup(options.encoding)
    except (LookupError, ValueError):
        raise UsageError(f"--encoding {options.encoding}: Python knows no such encoding") from None
    if not known._is_text_encoding:
        raise UsageError(f"--encoding {options.encoding} is no encoding of text")
    return None if known.name in ("utf-8", "utf-8-sig", "ascii") else known.name
