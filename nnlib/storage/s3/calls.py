"""One request to S3, tried again until it succeeds, is refused, or time is up.

The SDK's own retries are off: they are silent, and know nothing of a task's heartbeat. Here a wait is reported, has
full jitter, ends after ``NNJOBS_S3_WAIT`` seconds, and credentials that have expired are read anew meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from nnlib.core.errors import MismatchError, NnjobsError
from nnlib.core.waiting import waiting_for
from nnlib.storage.backoff import Backoff
from nnlib.storage.s3.address import S3Address
from nnlib.storage.s3.connection import Connection, connection_to, environment, price_of
from nnlib.storage.s3.errors import Failure, TransientError, explained, request_id
from nnlib.storage.s3.settings import S3Settings
from nnlib.storage.traffic import Traffic

Result = TypeVar("Result")
Answer = Mapping[str, Any]
"""What the SDK makes of an answer."""
Attempt = Callable[["Request"], Result]

LONGEST_PAUSE_SECONDS = 20.0
DAMAGED = 4
"""Times in a row that bytes may come with a wrong checksum. Time does not help a damaged object."""

_log = logging.getLogger("nnjobs.storage")


class Request:
    """What an attempt sends: operations of the SDK's client, with the bucket and what every request has."""

    def __init__(self, calls: S3Calls, client: Any) -> None:
        self._calls, self._client = calls, client

    def __call__(self, operation: str, **parameters: Any) -> Answer:
        """Send one request, such as ``("PutObject", Key="a", Body=b"")``. Raises what the SDK raises."""
        self._calls.traffic.count_request(price_of(operation))
        method = getattr(self._client, _METHODS[operation])
        answer: Answer = method(Bucket=self._calls.address.bucket, **self._calls.settings.every_request(), **parameters)
        return answer


_METHODS = {
    "PutObject": "put_object",
    "GetObject": "get_object",
    "HeadObject": "head_object",
    "DeleteObject": "delete_object",
    "DeleteObjects": "delete_objects",
    "ListObjectsV2": "list_objects_v2",
    "CreateMultipartUpload": "create_multipart_upload",
    "UploadPart": "upload_part",
    "CompleteMultipartUpload": "complete_multipart_upload",
    "AbortMultipartUpload": "abort_multipart_upload",
    "ListMultipartUploads": "list_multipart_uploads",
}


class S3Calls:
    """Requests for the objects of one bucket. Threads may share one."""

    def __init__(self, address: S3Address, settings: S3Settings, traffic: Traffic) -> None:
        self.address, self.settings, self.traffic = address, settings, traffic
        bucket = S3Address(address.bucket, "")
        self.connection: Connection = connection_to(bucket, settings, environment())

    def call(self, operation: str, **parameters: Any) -> Answer:
        """Send a request that may be repeated; return its answer. Raises `StorageError`."""
        return self.until_done(lambda send: send(operation, **parameters), parameters.get("Key"))

    def until_done(self, attempt: Attempt[Result], key: str | None = None, *, wait: bool = True) -> Result:
        """Return what an attempt returns that succeeds.

        Args:
            attempt: sends requests, and reads their answers. What it has done in vain must do no harm.
            key: what it is about, for messages.
            wait: wait for a service that is away; False: try once, for cleaning up.

        Raises:
            StorageError: it was refused, or the service is away for too long.
            MismatchError: what was read or sent was damaged on its way, each time.
        """
        service = f"s3://{self.address.bucket}"
        backoff = Backoff(
            self.settings.wait_seconds if wait else 0.0,
            "S3",
            service,
            variable="NNJOBS_S3_WAIT",
            check="see that this machine reaches the service and its credentials are good (aws s3 ls)",
            longest=LONGEST_PAUSE_SECONDS,
            jitter=True,
        )
        damaged = 0
        with waiting_for(f"{service} has not answered ({key or 'list'})", reports_end=True) as shown:
            while True:
                try:
                    result = self._tried(attempt, key)
                except TransientError as error:
                    damaged = damaged + 1 if error.is_damage else 0
                    if damaged == DAMAGED:
                        raise MismatchError(
                            f"{error}, {DAMAGED} times", hint="the object, or the way to it, is damaged"
                        ) from error
                    shown.what = f"{service}: {error} ({key or 'list'})"
                    backoff.wait(str(error))
                else:
                    backoff.succeeded()
                    return result

    def _tried(self, attempt: Attempt[Result], key: str | None) -> Result:
        client: Any = None
        try:
            client = self.connection.client(self.traffic)
            return attempt(Request(self, client))
        except (NnjobsError, TransientError):
            raise
        except Failure as error:
            resource = self.address.resource if key is None else f"{self.address.resource}/{key}"
            meaning = explained(error, self.address.bucket, resource)
            if isinstance(meaning, TransientError) and meaning.renews and client is not None:
                self.connection.renew(client)
            if isinstance(meaning, NnjobsError) and (request := request_id(error)):
                meaning.where["request"] = request
            raise meaning from error

    def pages(self, operation: str, prefix: str, **parameters: Any) -> Iterator[Answer]:
        """Yield the pages of a listing of what begins with ``prefix``."""
        more: dict[str, Any] = {}
        while True:
            page = self.call(operation, Prefix=prefix, **parameters, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            if operation == "ListObjectsV2":
                more = {"ContinuationToken": page["NextContinuationToken"]}
            else:
                more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def discard(self, operation: str, **parameters: Any) -> None:
        """Send a request that cleans up, once; what it fails to do stays for a later sweep."""
        with contextlib.suppress(NnjobsError):
            self.until_done(lambda send: send(operation, **parameters), parameters.get("Key"), wait=False)
