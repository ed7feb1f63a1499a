"""Starts an S3 for tests, points this process at it, and asks it what it saw."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import started

BUCKET = "nets"
IDENTITY, SECRET = "test", "testsecret"


class S3Service:
    """A running service. ``environment`` leads a process to it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.environment = {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": IDENTITY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
            "NNJOBS_S3_WAIT": "20",
        }

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Let this process, and those that it starts, use the service."""
        for name, value in self.environment.items():
            patch.setenv(name, value)

    def client(self) -> Any:
        """The SDK's client, as an oracle of ours."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=IDENTITY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def make_bucket(self, name: str = BUCKET) -> None:
        self.client().create_bucket(Bucket=name)


class FaultyService(S3Service):
    """Moto's S3, which fails as it is asked to."""

    def fail(self, *rules: dict[str, Any]) -> None:
        """Fail from now on by these rules (see `s3_server`), and forget what was seen; no rules: work."""
        self._control(json.dumps(rules).encode())

    def seen(self) -> list[dict[str, Any]]:
        """The requests since `fail`."""
        log: list[dict[str, Any]] = json.loads(self._control(None))
        return log

    def _control(self, data: bytes | None) -> bytes:
        request = urllib.request.Request(f"{self.endpoint}/_test/control", data)
        with urllib.request.urlopen(request, timeout=30) as answer:
            body: bytes = answer.read()
        return body


@contextlib.contextmanager
def faulty_service() -> Iterator[FaultyService]:
    program = Path(__file__).with_name("s3_server.py")
    with started([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield FaultyService(f"http://127.0.0.1:{int(process.stdout.readline())}")
