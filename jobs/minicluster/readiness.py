"""Asks the daemons over HTTP (REST and JMX) whether they work, and makes the first folders of HDFS."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from jobs.minicluster.daemons import daemon_error
from jobs.minicluster.settings import HISTORY_FOLDER, HOST, ClusterSettings

SECONDS = 5.0
"""An answer must come within this time."""

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Uses no proxy, whatever the environment names: all addresses are of this machine."""


HDFS_FOLDERS = {"/tmp": "1777", "/user": "755", "/user/{user}": "700"}


class NotReadyError(Exception):
    """A daemon is not ready yet; the text says what it waits for."""


def check_daemon(settings: ClusterSettings, name: str, *, with_datanode: bool = True) -> None:
    """Check that a daemon is ready.

    Args:
        with_datanode: the NameNode must have left safe mode, which it does when a DataNode has reported.

    Raises:
        NotReadyError: it is not.
    """
    try:
        if name == "namenode":
            _namenode(settings, with_datanode)
        else:
            CHECKS[name](settings)
    except (KeyError, TypeError, ValueError) as error:
        # While its daemon starts or ends, a bean lacks attributes.
        raise NotReadyError("is starting") from error


def fetch(settings: ClusterSettings, port: str, path: str) -> dict[str, Any]:
    """Fetch the JSON object at a path of a daemon's web interface.

    Raises:
        NotReadyError: there is no answer, or no JSON object.
    """
    try:
        with DIRECT.open(f"{settings.web(port)}{path}", timeout=SECONDS) as answer:
            facts = json.load(answer)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotReadyError("does not answer yet") from error
    if not isinstance(facts, dict):
        raise NotReadyError("does not answer yet")
    return facts


def bean(settings: ClusterSettings, port: str, name: str) -> dict[str, Any]:
    """Fetch the attributes of a management bean, such as ``service=NameNode,name=NameNodeInfo``.

    Raises:
        NotReadyError: the daemon does not answer or has not registered it yet.
    """
    beans = fetch(settings, port, f"/jmx?qry=Hadoop:{name}").get("beans") or []
    if not beans:
        raise NotReadyError("is starting")
    attributes: dict[str, Any] = beans[0]
    return attributes


def _namenode(settings: ClusterSettings, with_datanode: bool) -> None:
    facts = bean(settings, "namenode_http", "service=NameNode,name=NameNodeInfo")
    if not with_datanode:
        return
    if facts["Safemode"]:
        raise NotReadyError("is in safe mode")
    state = bean(settings, "namenode_http", "service=NameNode,name=FSNamesystemState")
    if not state["NumLiveDataNodes"]:
        raise NotReadyError("has no DataNode yet")


def _datanode(settings: ClusterSettings) -> None:
    # The NameNode's list would not do: for some time it still shows a DataNode that was killed.
    facts = bean(settings, "datanode_http", "service=DataNode,name=DataNodeInfo")
    actors = json.loads(facts["BPServiceActorInfo"])
    if not any(actor["ActorState"] == "RUNNING" for actor in actors):
        raise NotReadyError("has not registered with the NameNode yet")
    if not json.loads(facts["VolumeInfo"]):
        raise NotReadyError("has no volume yet")


def _resourcemanager(settings: ClusterSettings) -> None:
    info = fetch(settings, "resourcemanager_http", "/ws/v1/cluster/info")
    if info.get("clusterInfo", {}).get("state") != "STARTED":
        raise NotReadyError("is starting")


def _nodemanager(settings: ClusterSettings) -> None:
    this = fetch(settings, "nodemanager_http", "/ws/v1/node/info")["nodeInfo"]
    nodes = fetch(settings, "resourcemanager_http", "/ws/v1/cluster/nodes").get("nodes") or {}
    address = f"{HOST}:{settings.ports['nodemanager']}"
    for node in nodes.get("node", ()):
        # One that was killed counts as running for some time: it must have reported since this one started.
        if node["id"] == address and node["lastHealthUpdate"] >= this["nmStartupTime"]:
            if node["state"] == "RUNNING":
                return
            raise NotReadyError(f"is {node['state'].lower()}: {node.get('healthReport') or 'no reason is given'}")
    raise NotReadyError("has not registered with the ResourceManager yet")


def _historyserver(settings: ClusterSettings) -> None:
    fetch(settings, "historyserver_http", "/ws/v1/history/info")


CHECKS: dict[str, Callable[[ClusterSettings], None]] = {
    "datanode": _datanode,
    "resourcemanager": _resourcemanager,
    "nodemanager": _nodemanager,
    "historyserver": _historyserver,
}


def make_folders(settings: ClusterSettings) -> None:
    """Make the usual folders of HDFS as the superuser; existing ones keep their permissions.

    Raises:
        JobError: the NameNode refused.
    """
    user = quote(pwd.getpwuid(os.getuid()).pw_name)
    try:
        for path, mode in HDFS_FOLDERS.items():
            _put(settings, f"{path.format(user=user)}?op=MKDIRS&permission={mode}&user.name={user}")
        # The history server makes it for itself alone; others' jobs leave their histories below it.
        _put(settings, f"{HISTORY_FOLDER}?op=SETPERMISSION&permission=755&user.name={user}")
    except urllib.error.HTTPError as error:
        answer = error.read().decode(errors="replace")[:300]
        raise daemon_error(settings, "namenode", f"refused to make a folder ({answer})") from error
    except (OSError, http.client.HTTPException) as error:
        raise daemon_error(settings, "namenode", f"made no folder ({error})") from error


def _put(settings: ClusterSettings, request: str) -> None:
    address = f"{settings.web('namenode_http')}/webhdfs/v1{request}"
    with DIRECT.open(urllib.request.Request(address, method="PUT"), timeout=SECONDS):
        pass
