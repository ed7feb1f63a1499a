"""The active NameNode or ResourceManager dies while a run goes on: the other takes over, and the bits are the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hosts
import pytest
from failover_cluster import FailoverCluster
from failures import wait_until
from kerberos_cluster import CLIENT, MASTER
from kerberos_person import HOME, ROUNDS, Person
from scene import MINUTES, inline, write_data

from jobs.minicluster.assemble import assembly_folder

MODES: dict[str, tuple[dict[str, Any], str]] = {
    "rounds": ({"train": {"epochs": 2, "epochs_per_round": 1, "batch_size": 16}}, r"round 1/2"),
    "collective": (
        {
            "train": {"epochs": 3000, "epochs_per_round": 1, "batch_size": 16},
            "sync": {"mode": "collective"},
            "checkpoint": {"every": 2},
        },
        r"round \d+/3000",
    ),
}
"""The sections of the configuration, and what the run says when the daemon is to die."""
CASES = [(mode, daemon) for mode in MODES for daemon in ("namenode", "resourcemanager")]


@pytest.fixture(scope="module")
def kerberos_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailoverCluster]:
    """The cluster with two of each daemon, in place of the other tests'."""
    kept = [assembly_folder().parent, tmp_path_factory.getbasetemp()]
    with hosts.Network(tmp_path_factory.mktemp("pairs"), [MASTER, CLIENT], kept=kept) as network:
        cluster = FailoverCluster(network)
        cluster.start()
        yield cluster


@pytest.fixture(scope="module")
def expected(kerberos_cluster: FailoverCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The weights' hash of an inline run, by mode; the same dataset is in HDFS."""
    folder = tmp_path_factory.mktemp("data")
    write_data(str(folder / "rows"))
    person = Person(kerberos_cluster, folder)
    person.kinit()
    person.write_data()
    data = {"path": str(folder / "rows")}
    return {
        mode: inline({**ROUNDS, **keys, "data": data}, tmp_path_factory.mktemp(mode))
        for mode, (keys, _) in MODES.items()
    }


@pytest.mark.full
@pytest.mark.parametrize(("mode", "daemon"), CASES, ids=[", ".join(case) for case in CASES])
def test_the_other_takes_over(
    mode: str, daemon: str, kerberos_cluster: FailoverCluster, expected: dict[str, str], tmp_path: Path
) -> None:
    person = Person(kerberos_cluster, tmp_path)
    person.kinit()
    keys, words = MODES[mode]
    run = f"{HOME}/runs/{mode} {daemon}"
    command = ("train", person.config(keys, uber="off"), "-r", "hadoop", "--run-dir", run)
    with kerberos_cluster.running(*command, ticket=person.ticket, cwd=tmp_path) as (process, log):

        def is_there() -> bool:
            assert process.poll() is None, log.read_text()
            return re.search(words, log.read_text()) is not None

        wait_until(is_there, f"it says {words}", MINUTES)
        kerberos_cluster.fail_over(daemon)
        try:
            assert process.wait(2 * MINUTES) == 0, log.read_text()
            assert person.model("--resume", "--run-dir", run) == expected[mode]
        finally:
            kerberos_cluster.fall_back(daemon)
