"""Failures of a real cluster's daemons, and waiting for what they lead to: for tests of what a run survives."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import time
import urllib.request
from collections.abc import Callable, Iterator

from jobs.minicluster.cluster import Cluster
from jobs.minicluster.daemons import DAEMONS
from jobs.minicluster.processes import ProcessInfo, containers_of
from jobs.minicluster.readiness import DIRECT, SECONDS, fetch
from nnlib.storage import storage

PATIENCE = 120.0
"""Nothing is ever timed by this: a condition that does not come at all fails the test after it."""

USER = pwd.getpwuid(os.getuid()).pw_name
"""Who started the cluster, its superuser."""

ENDED = ("FINISHED", "FAILED", "KILLED")


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds:.0f} s still not: {what}"
        time.sleep(0.05)


def restart(cluster: Cluster, *names: str) -> None:
    """Kills daemons without a warning, starts them again with the same ports and waits until all is ready."""
    for name in names:
        cluster.kill_daemon(name)
    for name in names:
        cluster.start_daemon(name, wait=False)
    cluster.wait_ready(*names)


@contextlib.contextmanager
def lost(cluster: Cluster, *names: str) -> Iterator[None]:
    """Within it, some daemons are dead."""
    for name in names:
        cluster.kill_daemon(name)
    try:
        yield
    finally:
        for name in names:
            cluster.start_daemon(name, wait=False)
        cluster.wait_ready(*names)


@contextlib.contextmanager
def hanging(cluster: Cluster, *names: str) -> Iterator[None]:
    """Within it, some daemons hold their connections and answer nothing."""
    for name in names:
        cluster.pause_daemon(name)
    try:
        yield
    finally:
        for name in names:
            cluster.continue_daemon(name)
        cluster.wait_ready()


def heal(cluster: Cluster) -> None:
    """Everything runs again; applications of the test before are ended, their containers and what they staged gone."""
    for name in DAEMONS:
        cluster.continue_daemon(name)
        cluster.start_daemon(name, wait=False)
    cluster.wait_ready(*DAEMONS)
    for application in running_applications(cluster):
        kill_application(cluster, application)
    wait_until(lambda: not containers_of(cluster.folder), "containers have ended")
    storage(f"{cluster.settings.addresses()['webhdfs']}/user/{USER}/.staging").delete("")


def applications(cluster: Cluster) -> list[dict[str, object]]:
    """What the ResourceManager knows of all applications."""
    found = fetch(cluster.settings, "resourcemanager_http", "/ws/v1/cluster/apps").get("apps") or {}
    return list(found.get("app", ()))


def running_applications(cluster: Cluster) -> list[str]:
    """The ids of the applications that have not ended."""
    return [str(application["id"]) for application in applications(cluster) if application["state"] not in ENDED]


def kill_application(cluster: Cluster, application: str) -> None:
    """Ends an application, as ``yarn application -kill`` does, and waits for it."""
    address = f"{cluster.settings.web('resourcemanager_http')}/ws/v1/cluster/apps/{application}/state?user.name={USER}"
    content = json.dumps({"state": "KILLED"}).encode()
    request = urllib.request.Request(address, content, {"Content-Type": "application/json"}, method="PUT")
    with DIRECT.open(request, timeout=SECONDS):
        pass
    wait_until(lambda: application not in running_applications(cluster), f"{application} has ended")


def containers(cluster: Cluster, needle: str = "") -> list[ProcessInfo]:
    """The containers' processes that hold a text in their command lines."""
    return [process for process in containers_of(cluster.folder) if needle in process.command]
