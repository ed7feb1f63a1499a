"""What an address in S3 names: a bucket (or an access point), and a folder in it."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from nnlib.core.errors import UsageError

MOST_KEY_BYTES = 1024
"""Longest key that S3 takes, in bytes of UTF-8."""

_ACCESS_POINT = re.compile(r"(arn:aws[a-z-]*:s3:[a-z0-9-]+:\d{12}:accesspoint[:/][a-z0-9-]{3,50})(?:/(.*))?", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


@dataclass(frozen=True)
class S3Address:
    """A folder in a bucket. ``bucket`` is its name, or the ARN of an access point; ``prefix`` ends without ``/`` and is
    "" for the bucket itself."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"

    @property
    def is_access_point(self) -> bool:
        """Whether the bucket is named by an access point's ARN, which has a region."""
        return self.bucket.startswith("arn:")

    @property
    def resource(self) -> str:
        """The bucket as permissions name it."""
        return self.bucket if self.is_access_point else f"arn:aws:s3:::{self.bucket}"


def parse_address(address: str) -> S3Address:
    """Return what ``s3://BUCKET/FOLDER`` names; ``s3a://``, as Hadoop has it, means the same.

    Raises `UsageError` for an address that names no bucket, or goes upward.
    """
    rest = address.partition("://")[2]
    match = _ACCESS_POINT.fullmatch(rest)
    if match is not None:
        bucket, path = match[1], match[2] or ""
    else:
        bucket, _, path = rest.partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise UsageError(
                f"{bucket!r} cannot be the name of a bucket" if bucket else "names no bucket",
                hint="write s3://BUCKET/FOLDER, or s3://ARN-OF-AN-ACCESS-POINT/FOLDER",
                address=address,
            )
    if ".." in path.split("/"):
        raise UsageError("an address must not go upward (..)", address=address)
    prefix = posixpath.normpath(f"/{path.strip('/')}").strip("/")
    if len(prefix.encode()) > MOST_KEY_BYTES:
        raise UsageError(f"the name is longer than the {MOST_KEY_BYTES} bytes that S3 takes", address=address)
    return S3Address(bucket, prefix)
