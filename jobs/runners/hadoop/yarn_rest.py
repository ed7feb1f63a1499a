"""Asks YARN's web services about applications and nodes.

https://hadoop.apache.org/docs/r3.4.2/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.runners.hadoop.hadoop_web import TIMEOUT_SECONDS, request
from nnlib.storage.hdfs.hadoop_cli import find_hadoop
from nnlib.storage.hdfs.hadoop_config import properties

MANAGER = "yarn.resourcemanager"

ENDED = ("FINISHED", "FAILED", "KILLED")
"""Final states of an application."""


def program(name: str) -> str:
    """Return the path of one of Hadoop's programs, next to ``hadoop``; its name alone if Hadoop was not found."""
    hadoop = find_hadoop()
    return name if hadoop is None else str(Path(hadoop).with_name(name))


def fetch(address: str, *, last_bytes: int | None = None, timeout: float = TIMEOUT_SECONDS) -> bytes | None:
    """Return the content at an address; None if there is none, or nobody answers.

    ``last_bytes``: only the end of a log. YARN is asked for just that, but some versions send the whole.
    """
    if last_bytes is not None:
        address += f"?size=-{last_bytes}"
    answer = request(address, timeout=timeout)
    if answer is None or not answer.ok:
        return None
    data = bytes(answer.content)
    return data if last_bytes is None else data[-last_bytes:]


def fetch_entries(address: str, *keys: str, timeout: float = TIMEOUT_SECONDS) -> list[dict[str, Any]]:
    """Return the objects of the JSON list under these keys; [] if there is none.

    Of a list of one object YARN may write the object alone.
    """
    data = fetch(address, timeout=timeout)
    try:
        value = json.loads(data) if data else None
    except ValueError:
        return []
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]


def fetch_object(address: str, *keys: str, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
    """Return the JSON object under these keys; {} if there is none."""
    return next(iter(fetch_entries(address, *keys, timeout=timeout)), {})


def redirected(address: str) -> str:
    """Return the address that an address redirects to; itself if nobody answers there."""
    answer = request(address, timeout=TIMEOUT_SECONDS)
    return address if answer is None or not answer.ok else str(answer.url)


def application(name: str, web: str | None) -> dict[str, Any]:
    """Return the resource manager's record of an application: state, finalStatus, diagnostics, amContainerLogs ...

    ``web`` is the resource manager's address; without it yarn-site.xml says where it is.
    """
    web = current_manager(web)
    return {} if web is None else fetch_object(f"{web}/ws/v1/cluster/apps/{name}", "app")


def current_manager(web: str | None) -> str | None:
    """Return the address of the resource manager that is to be asked now: ``web``, which the client of a job printed,
    unless yarn-site.xml names several of them, of which another one may have taken over since."""
    return resource_manager() or web if web is None or _manager_ids() else web


def _manager_ids() -> list[str]:
    """The suffixes of the keys of resource managers that replace each other; [] where there is one."""
    names = properties().get(f"{MANAGER}.ha.rm-ids", "").split(",")
    return [f".{name.strip()}" for name in names if name.strip()]


def resource_manager() -> str | None:
    """Return the address of the resource manager's web services from yarn-site.xml; None if it is not there, or if
    none of several is active."""
    site = properties()
    if not _manager_ids():
        return _web_address(site, "")
    for name in _manager_ids():
        web = _web_address(site, name)
        if web and fetch_object(f"{web}/ws/v1/cluster/info", "clusterInfo").get("haState") == "ACTIVE":
            return web
    return None


def _web_address(site: Mapping[str, str], name: str) -> str | None:
    """The address of the resource manager with this suffix of its keys, or its host with Hadoop's default port."""
    secure = web_prefix() == "https://"
    address = site.get(f"{MANAGER}.webapp.{'https.' if secure else ''}address{name}")
    if address is None and (host := site.get(f"{MANAGER}.hostname{name}")):
        address = f"{host}:{8090 if secure else 8088}"
    return None if address is None else f"{web_prefix()}{address}"


def web_prefix() -> str:
    """Return what the addresses of YARN's pages begin with, by yarn-site.xml."""
    return "https://" if properties().get("yarn.http.policy") == "HTTPS_ONLY" else "http://"


def node_sizes(web: str | None) -> list[tuple[int, int]]:
    """Return (megabytes, vcores) that each running node has for containers, whether they are in use or not."""
    nodes = [] if web is None else fetch_entries(f"{web}/ws/v1/cluster/nodes?states=RUNNING", "nodes", "node")
    try:
        return [
            (
                int(node["availMemoryMB"]) + int(node["usedMemoryMB"]),
                int(node["availableVirtualCores"]) + int(node["usedVirtualCores"]),
            )
            for node in nodes
        ]
    except (KeyError, TypeError, ValueError):
        return []  # this resource manager names them otherwise


def nodes_of(name: str, web: str | None) -> set[str]:
    """Return the addresses of the web services of the nodes where an application's containers run now."""
    if web is None:
        return set()
    attempts = f"{web}/ws/v1/cluster/apps/{name}/appattempts"
    protocol = web.partition("://")[0]
    nodes = set()
    for attempt in fetch_entries(attempts, "appAttempts", "appAttempt"):
        if master := attempt.get("nodeHttpAddress"):
            nodes.add(f"{protocol}://{master}")
        containers = fetch_entries(f"{attempts}/{attempt.get('appAttemptId')}/containers", "container")
        nodes |= {str(each["nodeHttpAddress"]) for each in containers if each.get("nodeHttpAddress")}
    return nodes
