"""Large files go up in parts, several at once; readers see the file when all are there.

An upload that is not completed is no object, but its parts are kept and paid for until somebody ends it: the writer
itself, or, for a writer that was killed, the next sweep.
"""

from __future__ import annotations

import io
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from nnlib.core.errors import StorageError
from nnlib.core.liveness import heartbeat
from nnlib.storage import fault_hook
from nnlib.storage.s3.calls import Request, S3Calls
from nnlib.storage.s3.checksum import checksum, crc_text
from nnlib.storage.s3.conditional import create_object, is_marked, new_mark, unconditional
from nnlib.storage.s3.errors import Failure, code_of, ignores_conditions, is_conflict, lost_the_race

PART_BYTES = 8 << 20
ONE_REQUEST_BYTES = 16 << 20
"""Files up to this size go up in one request."""
MOST_PARTS = 10_000
AT_ONCE = 8
"""Parts that are sent at the same time, each held in memory."""
CONFLICTS = 5
"""Times that an upload begins anew because another request for the same object came between."""


class _ConflictError(Exception):
    """Another request for the same object came between."""


@dataclass(frozen=True)
class _Upload:
    key: str
    id: str
    mark: dict[str, str]


def upload(calls: S3Calls, key: str, source: BinaryIO, *, only_new: bool) -> bool:
    """Write an object from a stream that can seek.

    Args:
        calls: the bucket's.
        key: the object's name.
        source: the bytes, from its beginning on.
        only_new: write it only if there is none.

    Returns:
        Whether it was written: False where ``only_new`` and somebody else was quicker.

    Raises:
        StorageError: it was refused, or the service is away.
    """
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    place = f"s3://{calls.address.bucket}/{key}"
    if size <= ONE_REQUEST_BYTES:
        fault_hook.step("put", place)
        if only_new:
            return create_object(calls, key, source.read())
        put_object(calls, key, source.read())
        return True
    for _ in range(CONFLICTS):
        try:
            with _begun(calls, key, place) as begun:
                parts, crc = _send(calls, begun, source, part_bytes(size))
                fault_hook.step("complete", place)
                return _complete(calls, begun, parts, crc, size, only_new=only_new)
        except _ConflictError:
            source.seek(0)
    raise StorageError("several processes write it at once", file=place)


def put_object(calls: S3Calls, key: str, data: bytes) -> None:
    """Write a small object by one request. Raises `StorageError`."""
    parameters = {"Key": key, "Body": data, **calls.settings.new_object()}
    calls.call("PutObject", **parameters, **checksum(data, crc=calls.connection.sends_crc))


def part_bytes(size: int) -> int:
    """Return the bytes of a part: S3 takes 10,000 parts of an object."""
    return max(PART_BYTES, -(-size // MOST_PARTS))


@contextmanager
def _begun(calls: S3Calls, key: str, place: str) -> Iterator[_Upload]:
    """An upload, which is ended if the block fails."""
    mark = new_mark()
    kinds = {"ChecksumAlgorithm": "CRC32"} if calls.connection.sends_crc else {}
    if _sends_whole_crc(calls):
        kinds["ChecksumType"] = "FULL_OBJECT"
    fault_hook.step("begin", place)
    answer = calls.call("CreateMultipartUpload", Key=key, Metadata=mark, **kinds, **calls.settings.new_object())
    begun = _Upload(key, str(answer["UploadId"]), mark)
    try:
        yield begun
    except BaseException:
        fault_hook.step("clean", place)
        calls.discard("AbortMultipartUpload", Key=key, UploadId=begun.id)
        raise


def _sends_whole_crc(calls: S3Calls) -> bool:
    """Whether the checksum of the whole is sent, too: AWS knows it, other services refuse its header."""
    return calls.connection.sends_crc and calls.connection.is_aws


def _send(calls: S3Calls, begun: _Upload, source: BinaryIO, size: int) -> tuple[list[dict[str, Any]], int]:
    """Send the parts; return what completes the upload, and the CRC-32 of the whole."""
    parts: list[dict[str, Any]] = []
    waiting: deque[Future[dict[str, Any]]] = deque()
    crc = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            while data := source.read(size):
                heartbeat()
                crc = zlib.crc32(data, crc)
                if len(waiting) == AT_ONCE:
                    parts.append(waiting.popleft().result())
                waiting.append(pool.submit(_send_part, calls, begun, len(parts) + len(waiting) + 1, data))
            parts.extend(future.result() for future in waiting)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return parts, crc


def _send_part(calls: S3Calls, begun: _Upload, number: int, data: bytes) -> dict[str, Any]:
    fault_hook.step("part", f"s3://{calls.address.bucket}/{begun.key}")
    check = checksum(data, crc=calls.connection.sends_crc)
    answer = calls.call("UploadPart", Key=begun.key, UploadId=begun.id, PartNumber=number, Body=data, **check)
    sums = {name: value for name, value in check.items() if name != "ContentMD5"}
    return {"PartNumber": number, "ETag": answer["ETag"], **sums}


def _complete(
    calls: S3Calls, begun: _Upload, parts: list[dict[str, Any]], crc: int, size: int, *, only_new: bool
) -> bool:
    """Make the parts an object; return whether it is ours."""
    parameters: dict[str, Any] = {"MultipartUpload": {"Parts": parts}}
    if _sends_whole_crc(calls):
        parameters |= {"ChecksumCRC32": crc_text(crc), "ChecksumType": "FULL_OBJECT", "MpuObjectSize": size}
    if only_new:
        parameters["IfNoneMatch"] = "*"
    unsure = False

    def attempt(send: Request) -> bool:
        nonlocal unsure
        try:
            send("CompleteMultipartUpload", Key=begun.key, UploadId=begun.id, **parameters)
            return True
        except Failure as error:
            if lost_the_race(error):
                return unsure and is_marked(calls, begun.key, begun.mark)
            if ignores_conditions(error) and only_new:
                raise unconditional(calls) from error
            if is_conflict(error):
                raise _ConflictError from error
            if code_of(error) == "NoSuchUpload":
                if unsure and is_marked(calls, begun.key, begun.mark):
                    return True
                raise StorageError(
                    "its upload was ended while it was being written: does another process work here?"
                ) from error
            unsure = True
            raise

    won = calls.until_done(attempt, begun.key)
    if not won:
        calls.discard("AbortMultipartUpload", Key=begun.key, UploadId=begun.id)
    return won
