"""What a cluster's daemons do, and how full it is."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from jobs.minicluster.daemons import DAEMONS
from jobs.minicluster.layout import Layout
from jobs.minicluster.processes import daemons_of
from jobs.minicluster.readiness import NotReadyError, bean, check, fetch


@dataclass(frozen=True)
class DaemonState:
    """One daemon: up or not, and why not. Its process may be there (``pid``) without doing its work yet."""

    name: str
    pid: int | None
    port: int
    up: bool
    note: str


def states(layout: Layout) -> list[DaemonState]:
    """Every daemon's state."""
    processes = daemons_of(layout.folder)
    found = []
    for name, daemon in DAEMONS.items():
        process = processes.get(name)
        note = "" if process else "down"
        if process:
            try:
                check(layout, name, with_datanode="datanode" in processes)
            except NotReadyError as error:
                note = str(error)
        found.append(DaemonState(name, process.pid if process else None, layout.ports[daemon.port], not note, note))
    return found


def usage(layout: Layout) -> dict[str, int | None]:
    """Bytes of HDFS used and free, live nodes, running applications; None where nobody answers."""
    facts: dict[str, int | None] = dict.fromkeys(("hdfs_used", "hdfs_free", "live_nodes", "running_apps"))
    with contextlib.suppress(NotReadyError, KeyError):
        space = bean(layout, "namenode_http", "service=NameNode,name=NameNodeInfo")
        facts |= {"hdfs_used": space["Used"], "hdfs_free": space["Free"]}
    with contextlib.suppress(NotReadyError, KeyError):
        metrics = fetch(layout, "resourcemanager_http", "/ws/v1/cluster/metrics")["clusterMetrics"]
        facts |= {"live_nodes": metrics["activeNodes"], "running_apps": metrics["appsRunning"]}
    return facts
