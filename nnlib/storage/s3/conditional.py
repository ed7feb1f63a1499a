"""Objects that exactly one of several writers makes.

S3 writes an object only if there is none (``If-None-Match: *``), and answers 412 to all writers but the first. A writer
whose reply was lost asks again and gets 412, too: by a mark in the object's metadata it sees that it was itself the
first.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from nnlib.core.errors import StorageError
from nnlib.storage.s3.calls import Request, S3Calls
from nnlib.storage.s3.checksum import checksum
from nnlib.storage.s3.errors import Failure, NotThereError, ignores_conditions, lost_the_race

MARK = "nnjobs-writer"
"""Metadata of an object: who made it, by a number of its own."""

HINT = "nnjobs commits by them: use AWS S3 or another service that has them, or keep the run on a disk or in HDFS"


def new_mark() -> dict[str, str]:
    """Return the metadata of one writing."""
    return {MARK: secrets.token_hex(8)}


def create_object(calls: S3Calls, key: str, data: bytes) -> bool:
    """Make an object of at most 5 GB; False if there is one. Raises `StorageError`, also for a service that does not
    check."""
    mark = new_mark()
    parameters = {"Key": key, "Body": data, "Metadata": mark, **calls.settings.new_object()}
    parameters |= checksum(data, crc=calls.connection.sends_crc)
    unsure = False

    def attempt(send: Request) -> bool:
        nonlocal unsure
        try:
            send("PutObject", IfNoneMatch="*", **parameters)
            return True
        except Failure as error:
            if lost_the_race(error):
                return unsure and is_marked(calls, key, mark)
            if ignores_conditions(error):
                raise unconditional(calls) from error
            unsure = True
            raise

    created = calls.until_done(attempt, key)
    if created:
        require_conditions(calls, key, parameters)
    else:
        calls.connection.checks_conditions = True
    return created


def require_conditions(calls: S3Calls, key: str, parameters: Mapping[str, Any]) -> None:
    """Raise `StorageError` for a service that does not check conditions: asked once a process, by making an object
    that was just made again, with the same bytes. AWS is not asked."""
    connection = calls.connection
    if connection.checks_conditions is None and not connection.is_aws:

        def attempt(send: Request) -> bool:
            try:
                send("PutObject", IfNoneMatch="*", **parameters)
            except Failure as error:
                if lost_the_race(error):
                    return True
                raise
            return False

        connection.checks_conditions = calls.until_done(attempt, key)
    if connection.checks_conditions is False:
        calls.discard("DeleteObject", Key=key)
        raise unconditional(calls)


def unconditional(calls: S3Calls) -> StorageError:
    """Return the error for a service without conditional writes."""
    return StorageError(
        "this service does not check conditional writes (If-None-Match), so two drivers could write one run",
        hint=HINT,
        bucket=calls.address.bucket,
    )


def is_marked(calls: S3Calls, key: str, mark: dict[str, str]) -> bool:
    """Return whether an object is the one that was written with ``mark``."""
    try:
        answer = calls.call("HeadObject", Key=key)
    except NotThereError:
        return False
    return bool(answer.get("Metadata", {}).get(MARK) == mark[MARK])
