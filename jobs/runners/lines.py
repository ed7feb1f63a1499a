"""The lines that tasks exchange through a runner: key TAB value, and records of JSON as values.

Values begin with the zero-padded worker, so that sorted values come in worker order.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from nnlib.core.errors import MismatchError

Line = tuple[bytes, bytes]
"""Key and value."""

ERROR_KEY = b"!error"
"""Sorts before every other key: the driver sees errors first."""
WORKER_DIGITS = 8
"""Digits of a worker, and of a trial or slice, in keys and values."""


class LineProtocol:
    """Splits and joins key and value of a line as bytes, in mrjob's form of two methods. Decoders remove the tab that
    Hadoop adds at the end of a line."""

    def read(self, line: bytes) -> tuple[bytes, bytes]:
        """Return the key and the value of a line."""
        key, _, value = line.partition(b"\t")
        return key, value

    def write(self, key: bytes, value: bytes) -> bytes:
        """Return the line of a key and a value."""
        return key + b"\t" + value


def encode_record(worker: int, record: dict[str, Any]) -> bytes:
    """Return ``worker TAB json``: canonical (sorted keys), on one line."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return b"%0*d\t%s" % (WORKER_DIGITS, worker, text.encode("ascii"))


def decode_record(value: bytes) -> tuple[int, dict[str, Any]]:
    """Return (worker, record), the inverse of `encode_record`. Raises `MismatchError` for other values."""
    worker, _, text = value.rstrip(b"\t\r\n").partition(b"\t")
    try:
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError("not an object")
        return int(worker), record
    except (ValueError, RecursionError) as error:
        raise MismatchError(f"not a record: {value[:60]!r} ({len(value)} bytes)") from error


def reducer_of(line: bytes, reducers: int) -> int:
    """Return the number of a line's reducer: lines of one key go to one reducer, as with Hadoop's hash partitioner."""
    return zlib.crc32(line.split(b"\t", 1)[0]) % reducers
