"""Any node of a cluster may be lost while a run trains on it: the run ends in the bits of an inline run.

Hosts are namespaces of this machine (`hosts`), with a real Hadoop on them (`host_cluster`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from host_cluster import HostCluster
from host_scene import BASE, DATA, HOME
from lost_nodes import FAULTS, MODES, lose
from scene import inline, write_data

from nnlib.storage import storage


@pytest.fixture(scope="module")
def expected(host_cluster: HostCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The weights' hash of an inline run, by mode; the same dataset is in HDFS."""
    local = str(tmp_path_factory.mktemp("data") / "rows")
    write_data(local)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HADOOP_CONF_DIR", str(host_cluster.conf))  # for what this process does on the client's host
        host_cluster.client.visit(write_data, DATA)
        hashes = {
            mode: inline({**BASE, **keys, "data": {"path": local}}, tmp_path_factory.mktemp(mode))
            for mode, keys in MODES.items()
        }
        yield hashes
        host_cluster.client.visit(lambda: storage(HOME).delete(""))


CASES = [(mode, fault, with_master) for mode in MODES for fault in FAULTS for with_master in (False, True)]


def name(mode: str, fault: str, with_master: bool) -> str:
    return f"{mode}, {fault}{', with the master' if with_master else ''}"


@pytest.mark.parametrize(
    ("mode", "fault", "with_master"),
    [pytest.param(*case, marks=pytest.mark.full, id=name(*case)) for case in CASES],
)
def test_a_node_is_lost(
    mode: str, fault: str, with_master: bool, host_cluster: HostCluster, expected: dict[str, str], tmp_path: Path
) -> None:
    outcome = lose(host_cluster, tmp_path, mode, fault, with_master=with_master)
    assert outcome.model == expected[mode]
