"""What S3 does wrong is waited for, and said; what it refuses is one clear error."""

from __future__ import annotations

import io
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from s3_service import BUCKET, FaultyService

from nnlib.core.errors import MismatchError, NnjobsError, StorageError, UsageError
from nnlib.storage import Storage, storage

PUT = {"method": "PUT"}
GET = {"method": "GET", "path": "/file"}
LARGE = bytes(range(256)) * (20 << 12)
"""20 MiB: three parts."""


@pytest.fixture
def store(s3: FaultyService) -> Storage:
    return storage(f"s3://{BUCKET}/faults")


@pytest.fixture
def brief(s3: FaultyService, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """The storage for a user who waits for two seconds."""
    monkeypatch.setenv("NNJOBS_S3_WAIT", "2")
    return storage(f"s3://{BUCKET}/faults")


@pytest.mark.parametrize("fault", ["busy", "unavailable", "internal", "drop", "lost", "torn", "conflict"])
def test_a_write_comes_through(s3: FaultyService, store: Storage, fault: str) -> None:
    s3.fail({"do": fault, "times": 3, **PUT})
    store.write("file", b"new" * 1000)
    assert store.read("file") == b"new" * 1000


@pytest.mark.parametrize("fault", ["busy", "drop", "lost", "torn", "conflict"])
def test_one_creator_knows_that_it_was_the_first(s3: FaultyService, store: Storage, fault: str) -> None:
    """Also one whose reply was lost: the next attempt finds its own object."""
    s3.fail({"do": fault, "times": 2, **PUT})
    assert store.create("file", b"ours") is True
    s3.fail({"do": fault, "times": 2, **PUT})
    assert store.create("file", b"ours") is False
    assert store.create("file", b"theirs") is False
    assert store.read("file") == b"ours"


def test_of_creators_whose_replies_are_lost_one_wins(s3: FaultyService, store: Storage) -> None:
    for turn in range(5):
        gate = threading.Barrier(8)
        s3.fail({"do": "lost", "times": 4, **PUT})

        def create(worker: int, name: str = f"race-{turn}", gate: threading.Barrier = gate) -> bool:
            gate.wait()
            return store.create(name, b"the same bytes")

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(create, range(8))).count(True) == 1


@pytest.mark.parametrize("fault", ["busy", "drop", "cut", "internal"])
def test_a_read_comes_through(s3: FaultyService, store: Storage, fault: str) -> None:
    store.write("file", LARGE)
    s3.fail({"do": fault, "times": 3, **GET})
    assert store.read("file") == LARGE
    s3.fail({"do": fault, "skip": 1, "times": 3, **GET})
    with store.open("file") as stream:
        stream.seek(1 << 20)
        assert stream.read(1 << 20) == LARGE[1 << 20 : 2 << 20]


def test_damaged_bytes_are_read_again(s3: FaultyService, store: Storage) -> None:
    store.write("file", b"good bytes")
    s3.fail({"do": "damage", "times": 2, **GET})
    assert store.read("file") == b"good bytes"
    s3.fail({"do": "damage", **GET})
    with pytest.raises(MismatchError, match="wrong checksum") as caught:
        store.read("file")
    assert caught.value.where["file"] == f"s3://{BUCKET}/faults/file"


@pytest.mark.parametrize("fault", ["busy", "lost", "drop", "torn"])
@pytest.mark.parametrize("only_new", [True, False])
def test_a_file_in_parts_comes_through(s3: FaultyService, store: Storage, fault: str, only_new: bool) -> None:
    store.create("first", b"")  # shows that conditions are checked
    for query in ("^uploads", "partNumber=2", "uploadId=[^&]*$"):
        store.delete("file")
        s3.fail({"do": fault, "times": 1, "method": "PUT|POST", "path": "/file", "query": query})
        if only_new:
            assert store.create_from("file", io.BytesIO(LARGE)) is True
        else:
            store.write("file", LARGE)
        assert store.read("file") == LARGE
    assert store.create_from("file", io.BytesIO(LARGE[::-1])) is False
    assert store.read("file") == LARGE
    store.sweep()  # an upload whose beginning was answered to nobody
    assert uploads(s3) == []


def test_a_file_in_parts_that_fails_leaves_nothing(s3: FaultyService, brief: Storage) -> None:
    s3.fail({"do": "denied", "query": "partNumber=2"})
    with pytest.raises(StorageError, match=r"s3:PutObject on arn:aws:s3:::nets/faults/file is denied"):
        brief.write("file", LARGE)
    assert uploads(s3) == [] and not brief.exists("file")


def test_a_sweep_ends_only_what_it_is_asked_to(s3: FaultyService, store: Storage) -> None:
    client = s3.client()
    for key in ("faults/part-1", "faults/other", "faults/below/part-1", "elsewhere"):
        client.create_multipart_upload(Bucket=BUCKET, Key=key)
    store.sweep(of=lambda name: name.startswith("part"))
    assert uploads(s3) == ["elsewhere", "faults/below/part-1", "faults/other"]
    store.sweep()
    assert uploads(s3) == ["elsewhere"]


def uploads(s3: FaultyService) -> list[str]:
    found = s3.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
    return sorted(entry["Key"] for entry in found)


def test_waiting_is_bounded_and_said(s3: FaultyService, brief: Storage, caplog: pytest.LogCaptureFixture) -> None:
    s3.fail({"do": "busy", "method": "GET"})
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "nnjobs.storage"), pytest.raises(StorageError) as caught:
        brief.read("file")
    assert time.monotonic() - began < 6
    assert "S3 is not available: SlowDown" in str(caught.value) and "NNJOBS_S3_WAIT" in str(caught.value)
    assert "--resume" in str(caught.value) and caught.value.exit_code == 4
    requests = len(s3.seen())
    assert 3 <= requests <= 60


def test_expired_credentials_are_read_anew(s3: FaultyService, store: Storage, caplog: pytest.LogCaptureFixture) -> None:
    store.write("file", b"x")
    s3.fail({"do": "expired", "times": 2, "method": "GET"})
    assert store.read("file") == b"x"
    s3.fail({"do": "expired"})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError, match="have expired"):
        patch.setenv("NNJOBS_S3_WAIT", "1")
        storage(store.root).read("file")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("denied", ["s3:GetObject on arn:aws:s3:::nets/faults/file is denied", "s3:ListBucket"]),
        ("archived", ["archived", "restore"]),
        ("locked", ["object lock", "without object lock"]),
        ("kms", ["KMS", "kms:Decrypt"]),
        ("no bucket", ["there is no bucket 'nets'", "aws s3 mb"]),
        ("elsewhere", ["the bucket 'nets' is in eu-west-3", "AWS_REGION=eu-west-3"]),
        ("unknown key", ["does not accept the credentials", "aws sts get-caller-identity"]),
        ("clock", ["the clock of this machine"]),
    ],
)
def test_a_refusal_is_one_clear_error(s3: FaultyService, brief: Storage, fault: str, words: list[str]) -> None:
    s3.fail({"do": fault})
    with pytest.raises(NnjobsError) as caught:
        brief.read("file")
    for word in words:
        assert word in str(caught.value)
    assert caught.value.where["file"] == f"s3://{BUCKET}/faults/file"
    assert len(s3.seen()) <= 2  # boto3 may look where the bucket is


def test_each_denied_action_has_its_name(s3: FaultyService, brief: Storage) -> None:
    s3.fail({"do": "denied"})
    calls: dict[str, Any] = {
        "s3:PutObject": lambda: brief.write("file", b""),
        "s3:GetObject": lambda: brief.size("file"),
        "s3:ListBucket": lambda: brief.names(),
        "s3:DeleteObject": lambda: brief.delete("file"),
        "s3:ListBucketMultipartUploads": lambda: brief.sweep(),
    }
    for action, call in calls.items():
        with pytest.raises(StorageError, match=f"{action} on ") as caught:
            call()
        assert caught.value.where["action"] == action


@pytest.mark.parametrize("fault", ["no conditions", "not implemented"])
def test_a_service_without_conditional_writes_is_refused_at_the_first(
    s3: FaultyService, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("NNJOBS_S3_WAIT", "3")
    fresh = storage(f"s3://{BUCKET}/faults")
    s3.fail({"do": fault, **PUT})
    for _ in range(2):
        with pytest.raises(StorageError, match="does not check conditional writes") as caught:
            fresh.create("manifest", b"x")
        assert "on a disk or in HDFS" in str(caught.value)
    s3.fail()
    assert not fresh.exists("manifest")


def test_a_missing_bucket(s3: FaultyService) -> None:
    there = storage("s3://no-such-bucket/x")
    for call in (there.names, lambda: there.read("y"), lambda: there.write("y", b"")):
        with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket'"):
            call()


def test_no_credentials(s3: FaultyService) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        with pytest.raises(StorageError, match="there are no credentials") as caught:
            storage(f"s3://{BUCKET}/x").names()
        assert "aws sso login" in str(caught.value)
        patch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(UsageError, match="nobody"):
            storage(f"s3://{BUCKET}/x").names()


def test_a_replaced_file_is_not_read_in_two_versions(s3: FaultyService, store: Storage) -> None:
    store.write("file", LARGE)
    with store.open("file") as stream:
        assert stream.read(10) == LARGE[:10]
        store.write("file", LARGE[::-1])
        stream.seek(8 << 20)
        with pytest.raises(StorageError, match="replaced while it was being read"):
            stream.read(10)


def test_random_reads_are_those_of_a_file(s3: FaultyService, store: Storage) -> None:
    import numpy as np

    data = np.random.default_rng(0).bytes(5 << 20)
    store.write("file", data)
    rng = np.random.default_rng(1)
    with store.open("file") as stream:
        local = io.BytesIO(data)
        for _ in range(40):
            at, length = int(rng.integers(0, len(data))), int(rng.integers(0, 1 << 20))
            assert stream.seek(at) == local.seek(at)
            assert stream.read(length) == local.read(length)
        assert stream.seek(-100, io.SEEK_END) == local.seek(-100, io.SEEK_END)
        assert stream.read() == local.read()
        s3.fail()
        stream.seek(0)
        while stream.read(100_000):
            pass
        sizes = [entry["headers"]["RANGE"] for entry in s3.seen()]
        assert len(sizes) <= 6  # 256 KiB, 512 KiB, 1 MiB ...; the last MiB is there
