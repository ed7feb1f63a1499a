"""A service that checks signatures and checksums accepts what is sent, and refuses what was changed on its way."""

from __future__ import annotations

import io
import secrets
from pathlib import Path
from typing import Any

import botocore.awsrequest
import pytest
from s3_service import BUCKET, S3Service
from storage_contract import StorageContract

from nnlib.core.errors import MismatchError, StorageError
from nnlib.storage import Storage, storage


class TestStrictS3(StorageContract):
    has_directories = False

    @pytest.fixture
    def store(self, tmp_path: Path, strict_s3: S3Service) -> Storage:
        return storage(f"s3://{BUCKET}/{secrets.token_hex(4)}/a folder")


@pytest.fixture
def store(strict_s3: S3Service) -> Storage:
    return storage(f"s3://{BUCKET}/{secrets.token_hex(4)}")


def test_a_wrong_secret_is_refused(strict_s3: S3Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="does not accept the credentials"):
        storage(f"s3://{BUCKET}/x").read("y")


@pytest.mark.parametrize("checksums", ["when_supported", "when_required"])
def test_large_files_are_whole(store: Storage, monkeypatch: pytest.MonkeyPatch, checksums: str) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", checksums)
    there = storage(store.root)
    data = bytes(range(256)) * (17 << 12) + b"the end"
    assert there.create_from("large", io.BytesIO(data)) is True
    assert there.create_from("large", io.BytesIO(data[::-1])) is False
    assert there.read("large") == data and there.size("large") == len(data)
    there.write("large", data[::-1])
    assert there.read("large") == data[::-1]
    there.sweep()


@pytest.mark.parametrize("checksums", ["when_supported", "when_required"])
def test_bytes_that_were_changed_on_their_way_are_refused(
    store: Storage, monkeypatch: pytest.MonkeyPatch, checksums: str
) -> None:
    """The body is changed behind the signature: only the checksum of the parameters, or the signed hash, shows it."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", checksums)
    monkeypatch.setenv("NNJOBS_S3_WAIT", "3")
    there = storage(store.root)
    there.write("file", b"what was there")
    prepare = botocore.awsrequest.AWSPreparedRequest.__init__

    def changed(self: Any, method: str, url: str, headers: Any, body: Any, *rest: Any) -> None:
        data = b"" if body is None else body.read() if hasattr(body, "read") else body
        prepare(self, method, url, headers, data and bytes([data[0] ^ 1]) + data[1:], *rest)

    monkeypatch.setattr(botocore.awsrequest.AWSPreparedRequest, "__init__", changed)
    with pytest.raises((MismatchError, StorageError)):
        there.write("file", b"what is changed")
    monkeypatch.setattr(botocore.awsrequest.AWSPreparedRequest, "__init__", prepare)
    assert there.read("file") == b"what was there"
