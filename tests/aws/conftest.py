"""An S3 for all tests of a session: moto's, in a process of its own, behind a proxy that fails on demand."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import s3proxy
from s3_service import BUCKET, FaultyService, S3Service, faulty_service


@pytest.fixture(scope="session")
def s3_server() -> Iterator[FaultyService]:
    pytest.importorskip("moto")
    pytest.importorskip("flask_cors")
    with faulty_service() as service:
        service.make_bucket()
        yield service


@pytest.fixture
def s3(s3_server: FaultyService, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyService]:
    """The service, which this process uses during a test. Afterwards it works again, and its bucket is empty."""
    s3_server.use(monkeypatch)
    s3_server.fail()
    yield s3_server
    s3_server.fail()
    client = s3_server.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    for entry in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=BUCKET, Key=entry["Key"], UploadId=entry["UploadId"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    required = any(os.environ.get(name, "0") not in ("", "0", "false") for name in ("CI", "NNJOBS_REQUIRE_HADOOP"))
    reason = s3proxy.lacking()
    for item in items:
        if reason is not None and not required and "strict_s3_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=f"no S3Proxy: {reason}"))


@pytest.fixture(scope="session")
def strict_s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Service]:
    pytest.importorskip("boto3")
    with s3proxy.s3proxy(tmp_path_factory.mktemp("s3proxy") / "buckets") as service:
        service.make_bucket()
        yield service


@pytest.fixture
def strict_s3(strict_s3_server: S3Service, monkeypatch: pytest.MonkeyPatch) -> S3Service:
    """A service that checks signatures, checksums and conditional writes, which this process uses during a test."""
    strict_s3_server.use(monkeypatch)
    return strict_s3_server
