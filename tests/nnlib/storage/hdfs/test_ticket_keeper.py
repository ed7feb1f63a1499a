"""When a ticket is renewed, and what is said of one that cannot be."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nnlib.core.errors import StorageError, UsageError
from nnlib.storage.hdfs import ticket_keeper
from nnlib.storage.hdfs.ticket import Ticket, ticket_problem
from nnlib.storage.hdfs.ticket_keeper import CHECK_SECONDS, Keytab, TicketKeeper, kinit, log_in


@dataclass
class World:
    """A clock, a ticket that ends at a time, and a ``kinit`` that is played."""

    now: float = 0.0
    end: float | None = 1000.0
    complaint: str | None = None
    life: float = 1000.0
    last: float = float("inf")
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def ticket(self) -> Ticket | None:
        return None if self.end is None else Ticket("ann@R", max(self.end - self.now, 0.0))

    def kinit(self, *arguments: str) -> str | None:
        self.calls.append(arguments)
        if self.complaint is None:
            self.end = min(self.now + self.life, self.last)
        return self.complaint

    def keeper(self, keytab: Keytab | None = None) -> TicketKeeper:
        return TicketKeeper(keytab, self.ticket, self.kinit, lambda: self.now)

    def pass_time(self, keeper: TicketKeeper, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            keeper.look()
            self.now += CHECK_SECONDS


def test_a_renewable_ticket_is_renewed_at_half_its_time(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    keeper = world.keeper()
    world.pass_time(keeper, 490)
    assert not world.calls
    world.pass_time(keeper, 10_000)
    assert set(world.calls) == {("-R",)} and 15 < len(world.calls) < 25
    ticket = world.ticket()
    assert not caplog.records and ticket is not None and 499 <= ticket.seconds <= 1000


def test_a_ticket_that_cannot_be_renewed_is_said_once_in_time(caplog: pytest.LogCaptureFixture) -> None:
    world = World(end=10_000.0, complaint="KDC can't fulfill requested option while renewing credentials")
    keeper = world.keeper()
    world.pass_time(keeper, 8100)
    assert not caplog.records  # more than half an hour is left
    world.pass_time(keeper, 3000)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "the Kerberos ticket of ann@R ends at" in record.message and "kinit in another terminal" in record.message


def test_the_end_of_its_renewable_time_is_one_too(caplog: pytest.LogCaptureFixture) -> None:
    world = World(last=1500.0)
    world.pass_time(world.keeper(), 1400)
    (record,) = caplog.records
    assert "end of its renewable time" in record.message


def test_a_new_ticket_of_the_person_ends_the_warning(caplog: pytest.LogCaptureFixture) -> None:
    world = World(complaint="no")
    keeper = world.keeper()
    world.pass_time(keeper, 1100)
    assert len(caplog.records) == 1
    world.end = world.now + 5000
    world.pass_time(keeper, 100)
    world.end = world.now + 100
    world.pass_time(keeper, 90)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("seconds", [45.0, 600.0])
def test_a_short_ticket_is_renewed_in_time(seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    world = World(end=seconds, life=seconds)
    keeper = world.keeper()
    for _ in range(1000):
        keeper.look()
        world.now += max(1.0, min(CHECK_SECONDS, seconds / ticket_keeper.PARTS))
        ticket = world.ticket()
        assert ticket is not None and ticket.seconds > 0.2 * seconds
    assert not caplog.records


def test_a_ticket_that_is_gone_is_said(caplog: pytest.LogCaptureFixture) -> None:
    world = World(end=None)
    world.pass_time(world.keeper(), 100)
    assert not world.calls
    assert "has expired (there is none any more)" in caplog.records[0].message


def test_a_keytab_gets_a_new_ticket_also_when_the_old_one_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5CCNAME", "FILE:/x")
    world = World(end=None)
    keeper = world.keeper(Keytab(Path("/k"), "ann@R"))
    world.pass_time(keeper, 5000)
    assert set(world.calls) == {("-k", "-t", "/k", "-c", "FILE:/x", "ann@R")}
    assert world.ticket() is not None and world.calls


def played_kinit(folder: Path, script: str) -> None:
    (folder / "kinit").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "kinit").chmod(0o755)


def test_log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ticket lies in a file of this process alone; the keytab is named to kinit and nobody else."""
    for name in ("HADOOP_CONF_DIR", "HADOOP_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("KRB5CCNAME", "FILE:/of/the/person")
    keeper = World().keeper()
    monkeypatch.setattr(ticket_keeper, "_KEEPER", keeper)
    monkeypatch.setattr(keeper, "_process", os.getpid())  # no thread
    keytab = Keytab(tmp_path / "ann.keytab", "ann@R")
    with pytest.raises(UsageError, match="no such keytab"):
        log_in(keytab)
    keytab.path.write_bytes(b"k")
    played_kinit(tmp_path, 'echo "kinit: Keytab contains no suitable keys for ann@R" >&2; exit 1')
    with pytest.raises(StorageError, match="no suitable keys") as caught:
        log_in(keytab)
    assert "klist -kt" in str(caught.value) and os.environ["KRB5CCNAME"] == "FILE:/of/the/person"
    played_kinit(tmp_path, f'echo "$@" > {tmp_path}/said')
    log_in(keytab)
    cache = Path(os.environ["KRB5CCNAME"].removeprefix("FILE:"))
    assert cache.parent.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "said").read_text().split() == ["-k", "-t", str(keytab.path), "-c", f"FILE:{cache}", "ann@R"]
    (tmp_path / "said").unlink()
    log_in(keytab)  # nothing to do
    assert not (tmp_path / "said").exists()


def test_no_kinit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("HADOOP_HOME", raising=False)
    assert kinit("-R") == "cannot run kinit: No such file or directory"


def test_problems_of_a_ticket() -> None:
    assert ticket_problem(Ticket("ann@R", 1.0)) is None
    missing, expired = ticket_problem(None), ticket_problem(Ticket("ann@R", 0.0))
    assert missing is not None and "there is no Kerberos ticket" in str(missing) and "kinit" in str(missing)
    assert expired is not None and "has expired" in str(expired) and "--resume" in str(expired)
