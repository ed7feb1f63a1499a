"""Which addresses hold a user or a password, and which only look like it."""

from __future__ import annotations

import pytest

from nnlib.core.errors import UsageError
from nnlib.storage.credentials import refuse_credentials


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:secret@bucket/data",
        "s3a://key:sec/ret@bucket",
        "hdfs://somebody:password@namenode:8020/data",
        "HDFS://user@namenode/",
        "https://token@host/data.csv",
        "webhdfs://user:@host",
    ],
)
@pytest.mark.parametrize("text", ["{}", "data.path={}", "{}@7", "see {} and weep"])
def test_credentials_are_found_and_not_repeated(address: str, text: str) -> None:
    with pytest.raises(UsageError, match="holds a user name or a password") as caught:
        refuse_credentials(text.format(address), key="data.path")
    assert caught.value.where == {"key": "data.path"}
    assert not any(secret in str(caught.value) for secret in ("key:", "sec", "token", "user@", "somebody"))


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/a@b",
        "hdfs://namenode:8020/user/a@b",
        "hdfs://[::1]:8020/x@y",
        "/home/me@work/x:y",
        "runs/a@7",
        "a:b@c",
    ],
)
def test_other_addresses_are_not(address: str) -> None:
    refuse_credentials(address)
    refuse_credentials(f"data.path={address}")
