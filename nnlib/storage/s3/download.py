"""Objects are read as a whole, or by ranges, each from one and the same version of the object."""

from __future__ import annotations

import io
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from nnlib.core.errors import StorageError
from nnlib.core.liveness import heartbeat
from nnlib.storage.ranged_file import RangedFile
from nnlib.storage.s3.calls import Request, S3Calls
from nnlib.storage.s3.checksum import crc_text, whole_crc
from nnlib.storage.s3.errors import Failure, TransientError, code_of, lost_the_race, status_of

PART_BYTES = 8 << 20
ONE_REQUEST_BYTES = 16 << 20
"""Objects up to this size are read by one request, larger ones by several at once."""
AT_ONCE = 8
TAIL_BYTES = 1 << 20
"""What is read of an object when it is opened: all of a small one, and a Parquet file's footer of a large one."""
FIRST_AHEAD_BYTES = 256 << 10
MOST_AHEAD_BYTES = 32 << 20
GAP_BYTES = 1 << 20
"""Who skips less than this is reading on."""


@dataclass(frozen=True)
class Version:
    """One version of an object: its name, its ``tag`` (an ETag) and its size in bytes."""

    key: str
    tag: str
    size: int


def read_object(calls: S3Calls, key: str) -> bytes:
    """Return an object's bytes, checked against the checksum that S3 has of them. Raises `StorageError`, also where it
    is not there, and `MismatchError` where it always arrives damaged."""

    def attempt(send: Request) -> tuple[Version, str | None, bytes] | bytes:
        answer = send("GetObject", Key=key, ChecksumMode="ENABLED")
        body, size = answer["Body"], int(answer["ContentLength"])
        with body:
            if size <= ONE_REQUEST_BYTES:
                return _all_of(body, size)
            # The first part comes with this answer; with the rest unread, the SDK gives up the connection.
            return Version(key, str(answer["ETag"]), size), whole_crc(answer), _all_of(body, PART_BYTES, whole=False)

    got = calls.until_done(attempt, key)
    if isinstance(got, bytes):
        return got
    version, crc, first = got
    data = b"".join([first, *_ranges(calls, version, PART_BYTES, version.size)])
    if crc is not None and crc_text(zlib.crc32(data)) != crc:
        raise StorageError("arrived with a wrong checksum", hint="run the same command again")
    return data


def _all_of(body: Any, size: int, *, whole: bool = True) -> bytes:
    """Read ``size`` bytes of an answer; the ``whole`` of it is compared with its checksum."""
    data: bytes = body.read() if whole else body.read(size)
    if len(data) != size:
        raise TransientError(f"{len(data)} bytes came of {size}")
    return data


def open_object(calls: S3Calls, key: str) -> io.BufferedReader | io.BytesIO:
    """Open an object for random reads. Raises `StorageError`, also where it is not there."""

    def attempt(send: Request) -> tuple[Version, bytes]:
        try:
            answer = send("GetObject", Key=key, Range=f"bytes=-{TAIL_BYTES}")
        except Failure as error:
            if status_of(error) == 416 or code_of(error) == "InvalidRange":  # there is no last byte of none
                return Version(key, "", 0), b""
            raise
        with answer["Body"] as body:
            data = _all_of(body, int(answer["ContentLength"]))
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", str(answer.get("ContentRange") or ""))
        return Version(key, str(answer["ETag"]), int(match[3]) if match else len(data)), data

    version, tail = calls.until_done(attempt, key)
    if len(tail) == version.size:
        return io.BytesIO(tail)
    return io.BufferedReader(RangeFile(calls, version, tail))


def read_range(calls: S3Calls, version: Version, start: int, end: int) -> bytes:
    """Return the bytes from ``start`` up to ``end`` of a version. Raises `StorageError`, also where the object is
    another one by now."""

    def attempt(send: Request) -> bytes:
        try:
            answer = send("GetObject", Key=version.key, Range=f"bytes={start}-{end - 1}", IfMatch=version.tag)
        except Failure as error:
            if lost_the_race(error):
                raise StorageError("it was replaced while it was being read", hint="run the command again") from error
            raise
        with answer["Body"] as body:
            return _all_of(body, end - start)

    heartbeat()
    return calls.until_done(attempt, version.key)


def _ranges(calls: S3Calls, version: Version, start: int, end: int) -> list[bytes]:
    """Return the parts of a range, read several at once."""
    starts = range(start, end, PART_BYTES)
    with ThreadPoolExecutor(min(AT_ONCE, len(starts))) as pool:
        return list(pool.map(lambda at: read_range(calls, version, at, min(at + PART_BYTES, end)), starts))


class RangeFile(RangedFile):
    """An object that is read by ranges; use it buffered.

    Who reads on gets twice as much ahead each time, from 256 KiB to 32 MiB; who jumps begins anew. The object's end,
    where a Parquet file has its table of contents, stays in memory.
    """

    def __init__(self, calls: S3Calls, version: Version, tail: bytes) -> None:
        super().__init__(version.size)
        self._calls, self._version = calls, version
        self._tail, self._tail_start = tail, version.size - len(tail)
        self._window, self._start = b"", 0
        self._ahead = FIRST_AHEAD_BYTES

    def readall(self) -> bytes:
        data = bytearray(self.left(self.size))
        self.readinto(data)
        return bytes(data)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        wanted = self.left(len(buffer))
        done = 0
        while done < wanted:
            part = self._at(self.offset, wanted - done)
            buffer[done : done + len(part)] = part
            done += len(part)
            self.offset += len(part)
        return done

    def _at(self, offset: int, length: int) -> memoryview:
        """Return some bytes at a position, at most ``length``, reading ahead where they are not there yet."""
        if offset >= self._tail_start:
            return _cut(self._tail, offset - self._tail_start, length)
        end = self._start + len(self._window)
        if not self._start <= offset < end:
            is_next = end <= offset <= end + GAP_BYTES
            self._ahead = min(2 * self._ahead, MOST_AHEAD_BYTES) if is_next else FIRST_AHEAD_BYTES
            last = min(offset + max(length, self._ahead), self._tail_start)
            self._window = b"".join(_ranges(self._calls, self._version, offset, last))
            self._start = offset
        return _cut(self._window, offset - self._start, length)


def _cut(data: bytes, start: int, length: int) -> memoryview:
    return memoryview(data)[start : start + length]
