"""What YARN's web services tell of an application.

https://hadoop.apache.org/docs/r3.4.2/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html
"""

from __future__ import annotations

import getpass
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnlib.storage.hdfs.hadoop_cli import find_hadoop
from nnlib.storage.hdfs.hadoop_config import properties

TIMEOUT_SECONDS = 10.0
WEB = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks without a proxy: one for the world outside does not lead to the cluster."""

MANAGER = "yarn.resourcemanager"

ENDED = ("FINISHED", "FAILED", "KILLED")
"""States of an application that comes to no other."""


def program(name: str) -> str:
    """One of Hadoop's commands, beside ``hadoop``."""
    hadoop = find_hadoop()
    return name if hadoop is None else str(Path(hadoop).with_name(name))


def user() -> str:
    """Whom the cluster takes us for, where it trusts its clients (no Kerberos)."""
    return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()


def fetch(address: str, *, last_bytes: int | None = None, timeout: float = TIMEOUT_SECONDS) -> bytes | None:
    """What stands at an address; None if there is nothing, or nobody answers. ``last_bytes`` of a log: no more than its
    end, which YARN is asked for and may not know to give."""
    if last_bytes is not None:
        address += f"?size=-{last_bytes}"
    try:
        request = urllib.request.Request(address, headers={"Accept": "application/json, text/plain, */*"})
        with WEB.open(request, timeout=timeout) as answer:
            data: bytes = answer.read()
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return data if last_bytes is None else data[-last_bytes:]


def fetch_entries(address: str, *keys: str, timeout: float = TIMEOUT_SECONDS) -> list[dict[str, Any]]:
    """The objects of a list in JSON, which lies under these keys; [] if there is none. Of a list of one object YARN may
    write the object alone."""
    data = fetch(address, timeout=timeout)
    try:
        found = json.loads(data) if data else None
    except ValueError:
        return []
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, dict)]


def fetch_object(address: str, *keys: str, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
    """The object in JSON that lies under these keys; {} if there is none."""
    return next(iter(fetch_entries(address, *keys, timeout=timeout)), {})


def redirected(address: str) -> str:
    """Where an address leads; itself if nobody answers there."""
    try:
        with WEB.open(address, timeout=TIMEOUT_SECONDS) as answer:
            return str(answer.geturl())
    except (OSError, http.client.HTTPException, ValueError):
        return address


def application(name: str, web: str | None) -> dict[str, Any]:
    """The resource manager's account of an application: state, finalStatus, diagnostics, amContainerLogs ... It is
    asked at ``web``, or where yarn-site.xml says that it is."""
    web = web or resource_manager()
    return {} if web is None else fetch_object(f"{web}/ws/v1/cluster/apps/{name}", "app")


def resource_manager() -> str | None:
    """The address of the resource manager's web services, as yarn-site.xml has it; None if it does not say, or if of
    several none is active."""
    found = properties()
    ids = [f".{name.strip()}" for name in found.get(f"{MANAGER}.ha.rm-ids", "").split(",") if name.strip()]
    if not ids:
        return _web_address(found, "")
    for name in ids:
        web = _web_address(found, name)
        if web and fetch_object(f"{web}/ws/v1/cluster/info", "clusterInfo").get("haState") == "ACTIVE":
            return web
    return None


def _web_address(found: Mapping[str, str], name: str) -> str | None:
    """Of the resource manager with this suffix of its keys: by its address, or by its host and Hadoop's own port."""
    secure = found.get("yarn.http.policy") == "HTTPS_ONLY"
    address = found.get(f"{MANAGER}.webapp.{'https.' if secure else ''}address{name}")
    if address is None and (host := found.get(f"{MANAGER}.hostname{name}")):
        address = f"{host}:{8090 if secure else 8088}"
    return None if address is None else f"{'https' if secure else 'http'}://{address}"


def node_sizes(web: str | None) -> list[tuple[int, int]]:
    """Megabytes and vcores that each running node has for containers, whether they are taken or not."""
    found = [] if web is None else fetch_entries(f"{web}/ws/v1/cluster/nodes?states=RUNNING", "nodes", "node")
    try:
        return [
            (
                int(node["availMemoryMB"]) + int(node["usedMemoryMB"]),
                int(node["availableVirtualCores"]) + int(node["usedVirtualCores"]),
            )
            for node in found
        ]
    except (KeyError, TypeError, ValueError):
        return []  # another resource manager's words


def nodes_of(name: str, web: str | None) -> set[str]:
    """The addresses of the nodes' web services where an application's master and its containers run now."""
    if web is None:
        return set()
    place = f"{web}/ws/v1/cluster/apps/{name}/appattempts"
    protocol = web.partition("://")[0]
    nodes = set()
    for attempt in fetch_entries(place, "appAttempts", "appAttempt"):
        if master := attempt.get("nodeHttpAddress"):
            nodes.add(f"{protocol}://{master}")
        containers = fetch_entries(f"{place}/{attempt.get('appAttemptId')}/containers", "container")
        nodes |= {str(each["nodeHttpAddress"]) for each in containers if each.get("nodeHttpAddress")}
    return nodes
