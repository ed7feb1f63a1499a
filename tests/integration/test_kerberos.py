"""A cluster with Kerberos, SPNEGO and encryption: the bits of an inline run, and clear words about tickets.

The driver's user here is not the principal, its tickets are on the client's host alone, and no process on the nodes has
one.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from failures import wait_until
from kerberos_cluster import USER, KerberosCluster
from kerberos_person import HOME, PYTHON, ROUNDS, Person
from scene import MINUTES, inline, write_data


@pytest.fixture(scope="module")
def expected(kerberos_cluster: KerberosCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights' hash of an inline run here; the same dataset is in HDFS."""
    folder = tmp_path_factory.mktemp("data")
    write_data(str(folder / "rows"))
    person = Person(kerberos_cluster, folder)
    person.kinit()
    person.write_data()
    return inline({**ROUNDS, "data": {"path": str(folder / "rows")}}, folder)


@pytest.fixture
def person(kerberos_cluster: KerberosCluster, expected: str, tmp_path: Path) -> Person:
    return Person(kerberos_cluster, tmp_path)


def test_a_collective_run(person: Person, expected: str) -> None:
    person.kinit()
    run = f"{HOME}/runs/collective"
    assert person.model(person.config(), "-r", "hadoop", "--set", "sync.mode=collective", "--run-dir", run) == expected


def test_without_a_ticket_it_is_said_at_once_and_nothing_is_left(person: Person) -> None:
    began = time.monotonic()
    done = person.run("train", person.config(), "-r", "hadoop", "--run-dir", f"{HOME}/runs/none")
    assert done.returncode == 4 and "there is no Kerberos ticket" in done.stderr and "kinit" in done.stderr
    assert time.monotonic() - began < 30
    person.kinit()
    done = person.run("status", f"{HOME}/runs/none")
    assert done.returncode != 0 and "ticket" not in done.stderr


@pytest.mark.full
def test_rounds_and_the_other_commands(person: Person, expected: str) -> None:
    person.kinit()
    run = f"{HOME}/runs/rounds"
    assert person.model(person.config(uber="off"), "-r", "hadoop", "--run-dir", run) == expected
    commands = {
        ("status", run): "finished",
        ("logs", run): "round",
        ("logs", run, "--worker", "1"): "worker 1",
        ("verify", run): "",
        ("export", run, "--format", "npz", "-o", str(person.folder / "model.npz")): "",
        ("predict", run, f"{HOME}/data", "-o", str(person.folder / "predictions.parquet")): "",
        ("predict", run, f"{HOME}/data", "-o", f"{HOME}/predictions", "-r", "hadoop", "--python-bin", PYTHON): "",
        ("data", "info", f"{HOME}/data"): "300",
    }
    for command, words in commands.items():
        done = person.run(*command)
        assert done.returncode == 0 and words in done.stdout + done.stderr, (command, done.stderr)


@pytest.mark.full
def test_a_failed_start_leaves_no_run(person: Person, expected: str) -> None:
    person.kinit()
    run = f"{HOME}/runs/failed start"
    done = person.run("train", person.config(scratch="hdfs:///scratch"), "-r", "hadoop", "--run-dir", run)
    assert done.returncode == 4 and "permission denied" in done.stderr.lower(), done.stderr
    assert person.model(person.config(), "-r", "hadoop", "--run-dir", run) == expected


@pytest.mark.full
def test_a_ticket_that_ends_during_a_run_is_said_and_the_run_goes_on_later(person: Person, expected: str) -> None:
    person.kinit("-l", "45s", "-r", "45s")
    run = f"{HOME}/runs/expired"
    config = person.config(uber="off")
    done = person.run("train", config, "-r", "hadoop", "--run-dir", run)
    assert done.returncode == 4, done.stderr
    assert "cannot be renewed" in done.stderr and "--resume" in done.stderr, done.stderr
    assert "has expired" in done.stderr or "has no good Kerberos ticket" in done.stderr, done.stderr
    person.kinit()
    assert person.model(config, "-r", "hadoop", "--run-dir", run, "--resume") == expected


@pytest.mark.full
def test_a_renewable_ticket_is_renewed(person: Person, expected: str) -> None:
    person.kinit("-l", "45s", "-r", "10m")
    done = person.run("train", person.config(uber="off"), "-r", "hadoop", "--run-dir", f"{HOME}/runs/renewed", "--json")
    assert done.returncode == 0 and "cannot be renewed" not in done.stderr, done.stderr
    assert expected in done.stdout


@pytest.mark.full
def test_a_keytab_gets_tickets_and_is_sent_nowhere(person: Person, expected: str) -> None:
    """There is no ticket in the person's own cache; the key is in no file that nodes or HDFS keep."""
    keytab = person.folder / "ann.keytab"
    keytab.write_bytes(person.cluster.user_keys.read_bytes())
    keytab.chmod(0o600)
    run = f"{HOME}/runs/keytab"
    config = person.config(keytab=str(keytab), principal=USER)
    assert person.model(config, "-r", "hadoop", "--set", "sync.mode=collective", "--run-dir", run) == expected
    assert not person.ticket.exists()
    secret = keytab.read_bytes()[-32:]
    places = [person.cluster.master.folder, person.folder / "cache"]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert files
    assert not any(secret in path.read_bytes() for path in files)


@pytest.mark.full
def test_a_cluster_without_nodes_says_so(person: Person) -> None:
    person.kinit()
    cluster = person.cluster
    cluster.stop_daemon("nodemanager")
    try:
        run = f"{HOME}/runs/no nodes"
        command = ("train", person.config(), "-r", "hadoop", "--run-dir", run)
        with cluster.running(*command, ticket=person.ticket, cwd=person.folder) as (process, log):
            wait_until(lambda: "no node is running" in log.read_text(), "it says what is missing", MINUTES)
            assert cluster.client.kill("-m jobs train", number=signal.SIGTERM)
            assert process.wait(MINUTES) == 130
    finally:
        cluster.start_daemon("nodemanager")
