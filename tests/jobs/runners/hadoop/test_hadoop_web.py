"""Requests to pages that want Kerberos."""

from __future__ import annotations

import sys

import pytest
from played_kerberos import PlayedTicket

from jobs.runners.hadoop import hadoop_web
from jobs.runners.hadoop.hadoop_web import request
from jobs.runners.hadoop.yarn_rest import fetch, fetch_object, redirected

Guarded = tuple[str, list[tuple[str, str]]]


@pytest.fixture(autouse=True)
def wants_kerberos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HADOOP_TOKEN_FILE_LOCATION", raising=False)
    monkeypatch.setenv("NNJOBS_HDFS_AUTH", "kerberos")
    hadoop_web._warn_once.cache_clear()


def test_pages_are_asked_with_the_ticket(guarded: Guarded, played_ticket: PlayedTicket) -> None:
    url, seen = guarded
    assert fetch_object(url)["who"] == "ann@HOSTS.TEST"
    assert redirected(f"{url}/a") == f"{url}/a"
    assert len(seen) == 4


def test_a_refusal_is_said_once(
    guarded: Guarded, played_ticket: PlayedTicket, caplog: pytest.LogCaptureFixture
) -> None:
    played_ticket.seconds = 0.0
    assert fetch(guarded[0]) is None and fetch(guarded[0]) is None
    (record,) = caplog.records
    assert "does not accept who we are (401): the Kerberos ticket has expired" in record.message


def test_without_the_package_it_says_so(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "requests_gssapi", None)
    answer = request(guarded[0])
    assert answer is not None and answer.status_code == 401
    assert "nnjobs[kerberos]" in caplog.text


def test_nobody_answers() -> None:
    assert request("http://127.0.0.1:1/") is None
