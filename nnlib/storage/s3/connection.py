"""The SDK's client for one bucket: made late, once a process, with the bucket's region."""

from __future__ import annotations

import logging
import os
import threading
from functools import lru_cache
from typing import Any

import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from nnlib.storage.s3.address import S3Address
from nnlib.storage.s3.errors import region_in, status_of
from nnlib.storage.s3.settings import S3Settings
from nnlib.storage.traffic import Price, Traffic

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
"""Longest silence of a service that has answered the connection."""
CONNECTIONS = 32
"""Connections kept open: those of parallel parts of a file, of several files."""
FIRST_REGION = "us-east-1"
"""Where to ask for a bucket's region when none is configured."""

WRITES = {
    *("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "CopyObject"),
    *("ListObjectsV2", "ListMultipartUploads"),
}
FREE = {"DeleteObject", "DeleteObjects", "AbortMultipartUpload"}

_LOADER = botocore.loaders.create_loader()
"""Keeps the SDK's descriptions of S3, which take a tenth of a second to read: processes forked from this one have
them."""

_log = logging.getLogger("nnjobs.storage")


def price_of(operation: str) -> Price:
    """Return what S3 charges for a request."""
    return "write" if operation in WRITES else "free" if operation in FREE else "read"


class Connection:
    """A client for one bucket. Threads may share one; a forked process makes its own."""

    def __init__(self, address: S3Address, settings: S3Settings) -> None:
        self._bucket, self._settings = address, settings
        self._lock = threading.RLock()
        self._client: Any = None
        self._process = 0
        self._region: str | None = settings.region or None
        self.sends_crc = True
        """Whether checksums go as CRC-32, which S3 keeps; else as MD5, for services that do not know them."""
        self.is_aws = True
        """Whether the service is AWS's own, which is known to do what its documentation says."""
        self.checks_conditions: bool | None = None
        """Whether the service was seen to check conditional writes; None: not seen yet."""

    @property
    def region(self) -> str | None:
        """The bucket's region, once it is known."""
        return self._region

    def client(self, traffic: Traffic) -> Any:
        """Return the client; ``traffic`` counts what that takes. Raises what the SDK raises, also where the bucket is
        not there."""
        with self._lock:
            if self._client is None or self._process != os.getpid():
                self._client = self._made(traffic)
                self._process = os.getpid()
            return self._client

    def renew(self, client: Any) -> None:
        """Make a new client, with credentials read anew, in place of ``client``, if that is still in use."""
        with self._lock:
            if self._client is client:
                self._client = None

    def _made(self, traffic: Traffic) -> Any:
        session = _session()
        configured = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        client = self._in_region(session, self._region or configured or FIRST_REGION)
        self.sends_crc = session.get_config_variable("request_checksum_calculation") != "when_required"
        self.is_aws = ".amazonaws.com" in client.meta.endpoint_url
        if self._region is None and self.is_aws and not self._bucket.is_access_point:
            self._region = self._asked_region(client, traffic)
            if self._region != client.meta.region_name:
                if configured:
                    _log.warning(
                        "the bucket %s is in %s, not in %s as configured: what is read there from elsewhere costs more",
                        *(self._bucket.bucket, self._region, configured),
                    )
                client = self._in_region(session, self._region)
        return client

    def _in_region(self, session: botocore.session.Session, region: str) -> Any:
        style = self._settings.addressing
        client = _client(session, region, style)
        if not style and ".amazonaws.com" not in client.meta.endpoint_url:
            profile = session.get_scoped_config().get("s3")
            if not (isinstance(profile, dict) and "addressing_style" in profile):
                client = _client(session, region, "path")  # few other services have a name in the DNS for each bucket
        return client

    def _asked_region(self, client: Any, traffic: Traffic) -> str:
        """Ask S3 where the bucket is; who may not list it gets the answer, too."""
        traffic.count_request("read")
        try:
            answer = client.head_bucket(Bucket=self._bucket.bucket)
        except ClientError as error:
            region = region_in(error)
            if status_of(error) == 404:  # as the other calls say it: HEAD has no text
                error.response["Error"] = {"Code": "NoSuchBucket", "Message": ""}
                raise
            if region is None:
                raise
            return region
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return str(answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or client.meta.region_name)


def _session() -> botocore.session.Session:
    session = botocore.session.Session()
    session.register_component("data_loader", _LOADER)
    return session


def read_descriptions() -> None:
    """Read what a client is made from, once for this process and those that it forks."""
    for style in ("path", ""):
        session = _session()
        session.set_credentials("none", "none")  # of a client that sends nothing
        _client(session, FIRST_REGION, style)


def _client(session: botocore.session.Session, region: str, style: str) -> Any:
    return session.create_client(
        "s3",
        region_name=region,
        config=Config(
            retries={"total_max_attempts": 1, "mode": "standard"},  # `nnlib.storage.s3.calls` tries again
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
            user_agent_extra="nnjobs",
            request_checksum_calculation="when_required",  # `nnlib.storage.s3.checksum` sends them
            **({"s3": {"addressing_style": style}} if style else {}),
        ),
    )


@lru_cache(maxsize=32)
def connection_to(bucket: S3Address, settings: S3Settings, environment: tuple[str, ...]) -> Connection:
    """Return the connection to a bucket (an address without a folder), one for all storages there.

    ``environment`` is what the SDK reads: with other variables there is another connection.
    """
    return Connection(bucket, settings)


def environment() -> tuple[str, ...]:
    """Return the SDK's variables as they are now, secrets as hashes: a changed one needs another connection."""
    return tuple(
        f"{name}={hash(value)}" for name, value in sorted(os.environ.items()) if name.startswith(("AWS_", "NNJOBS_S3_"))
    )
