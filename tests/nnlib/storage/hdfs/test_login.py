"""Who we are for a cluster with Kerberos: a ticket's principal, or in a task the job's token."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from pathlib import Path

import pytest
from played_kerberos import PlayedTicket

from nnlib.core.errors import StorageError, UsageError
from nnlib.storage.hdfs.choose_client import choose
from nnlib.storage.hdfs.hadoop_config import HdfsAddress, locate, other_servers
from nnlib.storage.hdfs.hadoop_user import hadoop_user
from nnlib.storage.hdfs.tokens import VARIABLE, Token, _vint
from nnlib.storage.hdfs.webhdfs import WebHdfs

Guarded = tuple[str, list[tuple[str, str]]]


def place(url: str) -> HdfsAddress:
    return HdfsAddress("hdfs", "nn:8020", (url,), "", True, None, "webhdfs", 5.0)


def token_file(folder: Path) -> Path:
    parts = (b"nn:8020", b"id", b"secret", b"HDFS_DELEGATION_TOKEN", b"nn:8020")
    path = folder / "container_tokens"
    path.write_bytes(b"HDTS\0" + _vint(1) + b"".join(_vint(len(part)) + part for part in parts) + _vint(0))
    return path


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_CONF_DIR", "HADOOP_HOME", "HADOOP_USER_NAME", "NNJOBS_HDFS_HTTP", VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_the_driver_signs_with_its_ticket(guarded: Guarded, played_ticket: PlayedTicket) -> None:
    url, seen = guarded
    assert WebHdfs(place(url)).list("/x") == []
    assert [who for _, who in seen] == ["", "ann@HOSTS.TEST"]
    assert all("user.name" not in path for path, _ in seen)


def test_a_task_shows_its_token_and_needs_no_package(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = guarded
    monkeypatch.setitem(sys.modules, "requests_gssapi", None)
    monkeypatch.setenv(VARIABLE, str(token_file(tmp_path)))
    assert choose(place(url)) == "webhdfs"
    assert WebHdfs(place(url)).list("/x") == []
    ((path, who),) = seen
    token = Token("HDFS_DELEGATION_TOKEN", "nn:8020", b"id", b"secret")
    assert who == "" and f"delegation={token.to_url()}" in path and "user.name" not in path
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setenv("NNJOBS_HDFS_AUTH", "kerberos")
    assert hadoop_user() == "ann"


def test_without_a_ticket_it_is_said_at_once(guarded: Guarded, played_ticket: PlayedTicket) -> None:
    url, seen = guarded
    played_ticket.principal = None
    with pytest.raises(StorageError, match="there is no Kerberos ticket"):
        WebHdfs(place(url))
    assert not seen
    played_ticket.principal, played_ticket.seconds = "ann@HOSTS.TEST", 0.0
    with pytest.raises(StorageError, match="the Kerberos ticket has expired"):
        WebHdfs(place(url))


def test_a_ticket_that_expires_is_the_error(guarded: Guarded, played_ticket: PlayedTicket) -> None:
    client = WebHdfs(place(guarded[0]))
    played_ticket.seconds = 0.0
    with pytest.raises(StorageError, match="has expired") as caught:
        client.list("/x")
    assert "--resume" in str(caught.value)
    played_ticket.seconds = 10.0
    assert client.list("/x") == []  # somebody said kinit


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="wants Kerberos") as caught:
        WebHdfs(place("http://nn:9870"))
    assert 'pip install "nnjobs[kerberos]"' in str(caught.value)
    assert choose(place("http://nn:9870")) == "webhdfs"
    (tmp_path / "hadoop").write_text("#!/bin/sh\n")
    (tmp_path / "hadoop").chmod(0o755)
    assert choose(place("http://nn:9870")) == "cli"  # Hadoop's own client needs no package


def test_the_user_is_the_principals(played_ticket: PlayedTicket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "somebody")
    assert hadoop_user() == "somebody"
    monkeypatch.setenv("NNJOBS_HDFS_AUTH", "kerberos")
    assert hadoop_user() == "ann"
    played_ticket.realm = "ELSEWHERE"
    with pytest.raises(UsageError, match="no rule"):
        hadoop_user()


def test_what_leads_a_task_to_an_hdfs_with_kerberos(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name of a user, which the token says, and the certificates where there is https."""
    monkeypatch.setenv("NNJOBS_HDFS_AUTH", "kerberos")
    monkeypatch.setenv("NNJOBS_HDFS_CA", "/etc/ca.pem")
    access = locate("swebhdfs://nn:9871/x")[0].access()
    assert access.files == {"NNJOBS_HDFS_CA": "/etc/ca.pem"}
    assert access.environment["NNJOBS_HDFS_AUTH"] == "kerberos" and "HADOOP_USER_NAME" not in access.environment
    assert not locate("webhdfs://nn:9870/x")[0].access().files


def test_other_file_systems_than_the_default_one_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "<property><name>fs.defaultFS</name><value>hdfs://nn:8020/</value></property>"
    (tmp_path / "core-site.xml").write_text(f"<configuration>{entry}</configuration>")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    addresses = ["hdfs:///a", "hdfs://nn:8020/b", "/local", "hdfs://far:9000/c", "hdfs://far:9000/d"]
    assert other_servers(addresses) == ["hdfs://far:9000"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https"])
def test_no_error_shows_a_token(url: str, guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what is said nor a traceback: addresses hold it."""
    monkeypatch.setenv(VARIABLE, str(token_file(tmp_path)))
    address = guarded[0].replace("http:", "https:") if url == "https" else url
    with pytest.raises(StorageError) as caught:
        WebHdfs(dataclasses.replace(place(address), wait_seconds=0.0)).list("/x")
    text = "".join(traceback.format_exception(caught.value))
    assert "delegation" not in text and Token("HDFS_DELEGATION_TOKEN", "nn:8020", b"id", b"secret").to_url() not in text
