"""How to ask S3, from the environment.

Credentials, profile, region and endpoint come from the AWS SDK's own variables and files (``AWS_PROFILE``,
``AWS_REGION``, ``AWS_ENDPOINT_URL_S3``, ``~/.aws/config`` ...), never from here. These variables add what the SDK has
no place for; they are about the account and the machine, not about an experiment, so no configuration has them:

``NNJOBS_S3_ADDRESSING``    path or virtual; default: path where an endpoint is set, else as the SDK does
``NNJOBS_S3_SSE``           AES256, aws:kms or aws:kms:dsse: how new files are encrypted; default: as the bucket does it
``NNJOBS_S3_KMS_KEY``       the key for aws:kms: its id, alias or ARN; default: the account's own
``NNJOBS_S3_BUCKET_KEY``    true or false: whether keys of the bucket stand in for calls of KMS; default true with KMS
``NNJOBS_S3_REQUEST_PAYER`` requester: this account pays for requests to other people's buckets
``NNJOBS_S3_WAIT``          seconds to wait for a service that is away or busy; default 120
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnlib.core.errors import UsageError
from nnlib.storage.base import Access
from nnlib.storage.variables import choice, wait_seconds

WAIT_SECONDS = 120.0
REGION_VARIABLE = "NNJOBS_S3_REGION"
"""The bucket's region, once it was asked: tasks need not ask again."""

PASSED_ON = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_REQUEST_CHECKSUM_CALCULATION"),
    *("NNJOBS_S3_ADDRESSING", "NNJOBS_S3_SSE", "NNJOBS_S3_KMS_KEY", "NNJOBS_S3_BUCKET_KEY"),
    *("NNJOBS_S3_REQUEST_PAYER", "NNJOBS_S3_WAIT"),
)
"""Variables that hold for tasks, too, where they are set here. None of them is a secret."""

COPIED = ("AWS_CA_BUNDLE",)
"""Variables that name a file of which tasks get a copy. Files with credentials are never copied."""


@dataclass(frozen=True)
class S3Settings:
    """How to ask S3. ``addressing`` "" leaves the style of addresses to the SDK; ``region`` is the bucket's, where the
    process that started this one has asked for it."""

    addressing: str = ""
    encryption: str = ""
    kms_key: str = ""
    bucket_key: bool = True
    requester_pays: bool = False
    wait_seconds: float = WAIT_SECONDS
    region: str = ""

    def access(self, region: str | None) -> Access:
        """Return what leads a task to the same service. Credentials are not among it: a node has its own."""
        variables = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}
        if region:
            variables[REGION_VARIABLE] = region
        files = {name: os.environ[name] for name in COPIED if os.environ.get(name)}
        return Access(variables, files, ("nnlib.storage.s3.preloaded",), ("boto3",))

    def every_request(self) -> Mapping[str, Any]:
        """Return the parameters that every request for an object has."""
        return {"RequestPayer": "requester"} if self.requester_pays else {}

    def new_object(self) -> Mapping[str, Any]:
        """Return the parameters of requests that make an object: how it is encrypted."""
        if not self.encryption:
            return {}
        parameters: dict[str, Any] = {"ServerSideEncryption": self.encryption}
        if self.encryption.startswith("aws:kms"):
            if self.encryption == "aws:kms":  # with two layers of encryption there are no keys of the bucket
                parameters["BucketKeyEnabled"] = self.bucket_key
            if self.kms_key:
                parameters["SSEKMSKeyId"] = self.kms_key
        return parameters


def read_settings() -> S3Settings:
    """Return what the environment says. Raises `UsageError`, which names the variable that is wrong."""
    encryption = choice("NNJOBS_S3_SSE", ("AES256", "aws:kms", "aws:kms:dsse"))
    key = os.environ.get("NNJOBS_S3_KMS_KEY", "")
    if key and not encryption.startswith("aws:kms"):
        raise UsageError("a key of KMS needs NNJOBS_S3_SSE=aws:kms", variable="NNJOBS_S3_KMS_KEY")
    return S3Settings(
        addressing=choice("NNJOBS_S3_ADDRESSING", ("path", "virtual")),
        encryption=encryption,
        kms_key=key,
        bucket_key=choice("NNJOBS_S3_BUCKET_KEY", ("true", "false")) != "false",
        requester_pays=choice("NNJOBS_S3_REQUEST_PAYER", ("requester",)) == "requester",
        wait_seconds=wait_seconds("NNJOBS_S3_WAIT", WAIT_SECONDS),
        region=os.environ.get(REGION_VARIABLE, ""),
    )
