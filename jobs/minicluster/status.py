"""The state of a cluster's daemons, and how full it is."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from jobs.minicluster.daemons import DAEMONS
from jobs.minicluster.processes import daemons_of
from jobs.minicluster.readiness import NotReadyError, bean, check_daemon, fetch
from jobs.minicluster.settings import ClusterSettings


@dataclass(frozen=True)
class DaemonState:
    """The state of a daemon: up, or ``note`` says why not. A daemon with a process (``pid``) may still be starting."""

    name: str
    pid: int | None
    port: int
    up: bool
    note: str


def daemon_states(settings: ClusterSettings) -> list[DaemonState]:
    """Return the state of every daemon."""
    processes = daemons_of(settings.folder)
    states = []
    for name, daemon in DAEMONS.items():
        process = processes.get(name)
        note = "" if process else "down"
        if process:
            try:
                check_daemon(settings, name, with_datanode="datanode" in processes)
            except NotReadyError as error:
                note = str(error)
        states.append(DaemonState(name, process.pid if process else None, settings.ports[daemon.port], not note, note))
    return states


def cluster_usage(settings: ClusterSettings) -> dict[str, int | None]:
    """Return HDFS's used and free bytes, live nodes and running applications; None where a daemon does not answer."""
    facts: dict[str, int | None] = dict.fromkeys(("hdfs_used", "hdfs_free", "live_nodes", "running_apps"))
    with contextlib.suppress(NotReadyError, KeyError):
        space = bean(settings, "namenode_http", "service=NameNode,name=NameNodeInfo")
        facts |= {"hdfs_used": space["Used"], "hdfs_free": space["Free"]}
    with contextlib.suppress(NotReadyError, KeyError):
        metrics = fetch(settings, "resourcemanager_http", "/ws/v1/cluster/metrics")["clusterMetrics"]
        facts |= {"live_nodes": metrics["activeNodes"], "running_apps": metrics["appsRunning"]}
    return facts
