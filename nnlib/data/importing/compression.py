"""Compressed files: recognized by their first bytes, whatever their names, and read as a stream."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa

from nnlib.core.errors import DataError

HEAD_BYTES = 16
"""Bytes at the beginning of a file by which its compression is recognized."""

READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)
"""The errors that reading a damaged or encrypted compressed file may raise, besides Arrow's."""

_MAGIC = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\0", "zip": b"PK\x03\x04"}
_EMPTY_ZIP = b"PK\x05\x06"


def compression_of(head: bytes) -> str | None:
    """Return how a file with these first bytes is compressed: gzip, bz2, zstd, xz or zip; None if it is not."""
    if head.startswith(_EMPTY_ZIP):
        return "zip"
    return next((name for name, magic in _MAGIC.items() if head.startswith(magic)), None)


def read_head(file: str) -> bytes:
    """Return the first `HEAD_BYTES` bytes of a file of this machine. Raises `DataError` if it cannot be read."""
    try:
        with Path(file).open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError as error:
        raise DataError(f"is not readable ({error})", file=file) from None


def open_plain(file: str, member: str | None = None) -> Any:
    """Open a file, or a member of a zip archive, as a stream of Arrow that yields its bytes decompressed.

    Raises `DataError` if it cannot be opened; reading may raise `READ_ERRORS`.
    """
    kind = compression_of(read_head(file))
    try:
        if member is not None:
            return pa.PythonFile(zipfile.ZipFile(file).open(member), mode="r")
        if kind == "xz":
            return pa.PythonFile(lzma.open(file), mode="r")
        if kind is None or kind == "zip":
            return pa.input_stream(file, compression=None)
        return pa.CompressedInputStream(pa.OSFile(file), kind)
    except (*READ_ERRORS, KeyError, pa.ArrowException) as error:
        raise DataError(f"is not readable ({error})", file=file) from None


def decompressed_head(file: str, size: int) -> bytes:
    """Return the first ``size`` bytes of a file after decompression; of a zip archive those of the archive itself.

    Raises `DataError` if it cannot be read.
    """
    head = read_head(file)
    opener: Any = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}.get(compression_of(head) or "")
    try:
        stream: BinaryIO
        if opener is None:
            with open_plain(file) as stream:
                return stream.read(size)
        with opener(file) as stream:
            return stream.read(size)
    except (*READ_ERRORS, pa.ArrowException) as error:
        raise DataError(f"is not readable ({error})", file=file) from None


def zip_members(file: str) -> list[str]:
    """Return the sorted names of the files in a zip archive, without folders, hidden and empty files.

    Raises `DataError` for a damaged archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir() and info.file_size]
    except (*READ_ERRORS, UnicodeDecodeError) as error:
        raise DataError(f"is not a readable zip archive ({error})", file=file) from None
    if any(info.flag_bits & 1 for info in infos):
        raise DataError("is an encrypted zip archive", hint="unpack it first", file=file)
    names = [info.filename for info in infos]
    return sorted(name for name in names if not any(_is_hidden(part) for part in PurePosixPath(name).parts))


def _is_hidden(part: str) -> bool:
    return part.startswith((".", "__MACOSX"))
