"""An S3 for all tests of a session: moto's, in a process of its own, behind a proxy that fails on demand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from s3_service import BUCKET, FaultyService, faulty_service


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
