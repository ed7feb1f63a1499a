"""Requests are what AWS documents: checked by the SDK's own validation, without a service."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")

from nnlib.core.errors import UsageError  # noqa: E402
from nnlib.storage import Access, describe_requests, storage  # noqa: E402
from nnlib.storage.s3.address import S3Address, parse_address  # noqa: E402
from nnlib.storage.s3.connection import price_of  # noqa: E402
from nnlib.storage.s3.settings import S3Settings, read_settings  # noqa: E402
from nnlib.storage.s3.upload import part_bytes  # noqa: E402

POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moto in this process, in place of AWS: it takes any credentials."""
    for name in (
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    with moto.mock_aws():
        yield


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The operations that are called, with their parameters."""
    from botocore.client import BaseClient

    requests: list[Any] = []
    call = BaseClient._make_api_call

    def noted(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        requests.append((operation, parameters))
        return call(self, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", noted)
    return requests


@pytest.mark.parametrize(
    ("address", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3a://bucket/a//b/./c/", "bucket", "a/b/c"),
        ("s3://my.bucket-1/Größe/ä b", "my.bucket-1", "Größe/ä b"),
        (f"s3://{POINT}/mine/a/b", f"{POINT}/mine", "a/b"),
        (f"s3://{POINT}:mine", f"{POINT}:mine", ""),
        ("s3://mine-abcdefg-s3alias/a", "mine-abcdefg-s3alias", "a"),
    ],
)
def test_addresses(address: str, bucket: str, prefix: str) -> None:
    found = parse_address(address)
    assert found == S3Address(bucket, prefix)
    assert parse_address(str(found)) == found


@pytest.mark.parametrize(
    "address", ["s3://", "s3:///a", "s3://a/b", "s3://_x_/a", "s3://bucket/../other", "s3://b c/d"]
)
def test_addresses_that_name_nothing(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        storage(address)
    assert caught.value.exit_code == 2


def test_two_schemes_lead_to_one_place() -> None:
    assert storage("s3://bucket/a").location() == storage("s3a://bucket/a").location()
    assert storage("s3a://bucket/a").root == "s3://bucket/a"


def test_the_region_is_found_and_a_wrong_one_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    boto3.client("s3", "eu-west-3").create_bucket(
        Bucket="paris", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"}
    )
    there = storage("s3://paris/x")
    there.write("file", b"x")
    assert there.access().environment["NNJOBS_S3_REGION"] == "eu-west-3"
    assert not caplog.records
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    again = storage("s3://paris/x")
    assert again.read("file") == b"x"
    assert "the bucket paris is in eu-west-3, not in us-west-2" in caplog.text


def test_nothing_secret_goes_to_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("NNJOBS_S3_SSE", "aws:kms")
    access = S3Settings().access("eu-west-1")
    assert access.environment["AWS_PROFILE"] == "work" and access.environment["NNJOBS_S3_SSE"] == "aws:kms"
    assert "secret-of-a-test" not in str(access) and "a-token" not in str(access) and access.files == {}
    assert access.distributions == ("boto3",)
    merged = access | Access({"A": "b"}, distributions=("boto3", "x"))
    assert merged.environment["A"] == "b" and merged.distributions == ("boto3", "x")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {}),
        ({"NNJOBS_S3_SSE": "AES256"}, {"ServerSideEncryption": "AES256"}),
        ({"NNJOBS_S3_SSE": "aws:kms"}, {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True}),
        (
            {"NNJOBS_S3_SSE": "aws:kms", "NNJOBS_S3_KMS_KEY": "alias/k", "NNJOBS_S3_BUCKET_KEY": "false"},
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/k", "BucketKeyEnabled": False},
        ),
        ({"NNJOBS_S3_REQUEST_PAYER": "requester"}, {"RequestPayer": "requester"}),
    ],
)
def test_every_new_object_is_encrypted_as_asked(
    monkeypatch: pytest.MonkeyPatch, sent: list[Any], variables: dict[str, str], expected: dict[str, Any]
) -> None:
    boto3.client("s3", "us-east-1").create_bucket(Bucket="bucket")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    there = storage("s3://bucket/x")
    sent.clear()
    there.write("small", b"x")
    there.create("new", b"x")
    there.create_from("large", io.BytesIO(bytes(17 << 20)))
    makers = [parameters for operation, parameters in sent if operation in ("PutObject", "CreateMultipartUpload")]
    assert len(makers) == 3
    for parameters in makers:
        assert expected.items() <= parameters.items()
        if not variables:
            assert "ServerSideEncryption" not in parameters
    assert there.read("large") == bytes(17 << 20)


def test_creation_is_conditional_in_parts_too(sent: list[Any]) -> None:
    boto3.client("s3", "us-east-1").create_bucket(Bucket="bucket")
    there = storage("s3://bucket")
    assert there.create("a", b"1") and not there.create("a", b"2")
    assert there.create_from("b", io.BytesIO(bytes(17 << 20)))
    conditional = [operation for operation, parameters in sent if parameters.get("IfNoneMatch") == "*"]
    assert conditional == ["PutObject", "PutObject", "CompleteMultipartUpload"]
    completed = next(parameters for operation, parameters in sent if operation == "CompleteMultipartUpload")
    assert completed["ChecksumType"] == "FULL_OBJECT" and completed["MpuObjectSize"] == 17 << 20
    assert completed["ChecksumCRC32"] == base64.b64encode(zlib.crc32(bytes(17 << 20)).to_bytes(4, "big")).decode()


def test_a_versioned_bucket_works() -> None:
    client = boto3.client("s3", "us-east-1")
    client.create_bucket(Bucket="bucket")
    client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    there = storage("s3://bucket/x")
    for data in (b"1", b"2"):
        there.write("file", data)
    there.delete("file")
    assert not there.exists("file") and there.names() == []
    assert there.create("file", b"3") is True and there.read("file") == b"3"


def test_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_requests({}) is None
    line = describe_requests({"write": 2000, "read": 10_000, "free": 3})
    assert line is not None and line.endswith("about $0.0140 at $0.005 and $0.0004 a thousand")
    monkeypatch.setenv("NNJOBS_S3_PRICES", "1,2")
    assert "about $22.00" in (describe_requests({"write": 2000, "read": 10_000}) or "")
    monkeypatch.setenv("NNJOBS_S3_PRICES", "cheap")
    with pytest.raises(UsageError, match="two numbers"):
        describe_requests({"write": 1})
    monkeypatch.delenv("NNJOBS_S3_PRICES")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host")
    assert "$" not in (describe_requests({"write": 1}) or "")
    assert [price_of(name) for name in ("PutObject", "ListObjectsV2", "GetObject", "HeadObject", "DeleteObjects")] == [
        *("write", "write", "read", "read", "free")
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NNJOBS_S3_SSE", "rot13"),
        ("NNJOBS_S3_KMS_KEY", "without-kms"),
        ("NNJOBS_S3_WAIT", "long"),
        ("NNJOBS_S3_ADDRESSING", "both"),
        ("NNJOBS_S3_REQUEST_PAYER", "me"),
        ("NNJOBS_S3_BUCKET_KEY", "maybe"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError) as caught:
        read_settings()
    assert caught.value.where["variable"] == variable


def test_parts_are_few_enough() -> None:
    assert part_bytes(20 << 20) == 8 << 20
    for size in (80 << 30, (5 << 40)):
        assert -(-size // part_bytes(size)) <= 10_000
        assert part_bytes(size) <= 5 << 30
