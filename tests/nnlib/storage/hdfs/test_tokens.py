"""The reader of token files, against what Hadoop 3.4.2's own classes wrote and against every way a file can be cut."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nnlib.core.errors import StorageError, UsageError
from nnlib.storage.hdfs.tokens import (
    VARIABLE,
    Token,
    _vint,
    _Writables,
    hdfs_token,
    parse_tokens,
    read_token_file,
    task_tokens,
)

# Of Hadoop's Credentials.writeTokenStorageToStream: a token of HDFS whose password is 200 bytes, one of another kind
# and a secret.
WRITABLE = (
    "SERUUwACDzEwLjc3LjAuMTA6ODAyMCYADmFubkBIT1NUUy5URVNUAnJtAIoBojGV6uCKAaJVom7gjgEsAo/IAAcOFRwjKjE4P0ZN"
    "VFtiaXB3foWMk5qhqK+2vcTL0tng5+71/AMKERgfJi00O0JJUFdeZWxzeoGIj5adpKuyucDHztXc4+rx+P8GDRQbIikwNz5FTFNa"
    "YWhvdn2Ei5KZoKeutbzDytHY3+bt9PsCCRAXHiUsMzpBSE9WXWRrcnmAh46VnKOqsbi/xs3U2+Lp8Pf+BQwTGiEoLzY9REtSWWBn"
    "bnV8g4qRmJ+mrbS7wsnQ197l7PP6AQgPFh0kKzI5QEdOVVxjanEVSERGU19ERUxFR0FUSU9OX1RPS0VODzEwLjc3LjAuMTA6ODAy"
    "MAdTaHVmZmxlAwECAwEEBk1SX0pPQgZqb2Jfw6kBF01hcFJlZHVjZUVuY3J5cHRlZFNwaWxsAgkJ"
)
PROTOBUF = (
    "SERUUwH2AgqvAgoPMTAuNzcuMC4xMDo4MDIwEpsCCiYADmFubkBIT1NUUy5URVNUAnJtAIoBojGV6uCKAaJVom7gjgEsAhLIAQAH"
    "DhUcIyoxOD9GTVRbYmlwd36FjJOaoaivtr3Ey9LZ4Ofu9fwDChEYHyYtNDtCSVBXXmVsc3qBiI+WnaSrsrnAx87V3OPq8fj/Bg0U"
    "GyIpMDc+RUxTWmFob3Z9hIuSmaCnrrW8w8rR2N/m7fT7AgkQFx4lLDM6QUhPVl1ka3J5gIeOlZyjqrG4v8bN1Nvi6fD3/gUMExoh"
    "KC82PURLUllgZ251fIOKkZifpq20u8LJ0Nfe5ezz+gEIDxYdJCsyOUBHTlVcY2pxGhVIREZTX0RFTEVHQVRJT05fVE9LRU4iDzEw"
    "Ljc3LjAuMTA6ODAyMAojCgdTaHVmZmxlEhgKAwECAxIBBBoGTVJfSk9CIgZqb2Jfw6kSHQoXTWFwUmVkdWNlRW5jcnlwdGVkU3Bp"
    "bGwaAgkJ"
)
# Of its Token.encodeToUrlString.
URL = (
    "JgAOYW5uQEhPU1RTLlRFU1QCcm0AigGiMZXq4IoBolWibuCOASwCj8gABw4VHCMqMTg_Rk1UW2JpcHd-hYyTmqGor7a9xMvS2eDn"
    "7vX8AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dzj6vH4_wYNFBsiKTA3PkVMU1phaG92fYSLkpmgp661vMPK0djf5u30"
    "-wIJEBceJSwzOkFIT1ZdZGtyeYCHjpWco6qxuL_GzdTb4unw9_4FDBMaISgvNj1ES1JZYGdudXyDipGYn6attLvCydDX3uXs8_oB"
    "CA8WHSQrMjlAR05VXGNqcRVIREZTX0RFTEVHQVRJT05fVE9LRU4PMTAuNzcuMC4xMDo4MDIw"
)

PASSWORD = bytes(7 * number % 256 for number in range(200))
FORMS = {"Writables": base64.b64decode(WRITABLE), "Protocol Buffers": base64.b64decode(PROTOBUF)}


@pytest.mark.parametrize("form", FORMS)
def test_what_hadoop_writes_is_read(form: str) -> None:
    ours, other = parse_tokens(FORMS[form])
    assert (ours.kind, ours.service, ours.password) == ("HDFS_DELEGATION_TOKEN", "10.77.0.10:8020", PASSWORD)
    assert ours.to_url() == URL
    assert (ours.owner, ours.end) == ("ann@HOSTS.TEST", 1796733038.304)
    assert other == Token("MR_JOB", "job_é", b"\1\2\3", b"\4")
    assert (other.owner, other.end) == ("", float("inf"))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_cut_is_an_error(form: str, tmp_path: Path) -> None:
    whole = FORMS[form]
    for length in range(len(whole) - (40 if form == "Writables" else 0)):  # the secrets at the end are not read
        with pytest.raises(ValueError):
            parse_tokens(whole[:length])
    (tmp_path / "tokens").write_bytes(whole[:100])
    with pytest.raises(StorageError, match="not a file of Hadoop's tokens"):
        read_token_file(tmp_path / "tokens")
    with pytest.raises(StorageError, match="cannot be read"):
        read_token_file(tmp_path / "missing")


@given(st.binary(max_size=200))
@example(b"HDTS\2")
@example(b"HDTS\0\x8f\xff")
def test_other_content_is_a_value_error(content: bytes) -> None:
    for data in (content, b"HDTS\0" + content, b"HDTS\1" + content):
        try:
            parse_tokens(data)
        except ValueError:
            continue


@given(st.integers(0, 2**63 - 1))
def test_integers_are_read_as_written(value: int) -> None:
    assert _Writables(_vint(value)).vint() == value


def test_negative_integers() -> None:
    """By hand, from WritableUtils.writeVLong: -113 is one byte of its complement, 112."""
    assert _Writables(bytes([256 - 121, 112])).vint() == -113
    assert _Writables(bytes([256 - 112])).vint() == -112


def test_a_token_shows_no_secret() -> None:
    token = parse_tokens(FORMS["Writables"])[0]
    assert "password" not in repr(token) and "identifier" not in repr(token)


def hdfs(service: str, secret: bytes = b"s") -> Token:
    return Token("HDFS_DELEGATION_TOKEN", service, b"i", secret)


@pytest.mark.parametrize("service", ["ha-hdfs:east", "east:8020", "127.0.0.1:8020"])
def test_an_hdfs_has_its_token(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = {"east": "127.0.0.1"}
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *_: [(2, 1, 6, "", (at.get(host, "127.0.0.9"), 0))])
    tokens = [Token("MR_JOB", "east:8020", b"", b""), hdfs("west:8020", b"w"), hdfs(service)]
    assert hdfs_token(tokens, "east").service == service
    assert hdfs_token(tokens[1:2], "elsewhere:9000").service == "west:8020"  # the only one
    with pytest.raises(UsageError, match="no delegation token for the HDFS at elsewhere") as caught:
        hdfs_token(tokens, "elsewhere")
    assert "mapreduce.job.hdfs-servers" in str(caught.value)


def test_a_task_has_the_tokens_of_its_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert task_tokens() == []
    (tmp_path / "container_tokens").write_bytes(FORMS["Writables"])
    monkeypatch.setenv(VARIABLE, str(tmp_path / "container_tokens"))
    assert len(task_tokens()) == 2
