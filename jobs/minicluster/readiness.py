"""Whether a daemon does its work, asked over HTTP (REST and JMX), in one line for people where it does not yet."""

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

from jobs.minicluster.daemons import failure
from jobs.minicluster.layout import HISTORY_FOLDER, HOST, Layout

SECONDS = 5.0
"""An answer that takes longer is none."""

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy of the surroundings is not asked for loopback addresses."""


HDFS_FOLDERS = {"/tmp": "1777", "/user": "755", "/user/{user}": "700"}


class NotReadyError(Exception):
    """Not ready yet; the text says what is waited for."""


def check(layout: Layout, name: str, *, with_datanode: bool = True) -> None:
    """Returns if a daemon is ready.

    Args:
        with_datanode: whether the NameNode shall have left safe mode, which it does when a DataNode has reported.

    Raises:
        NotReadyError: it is not.
    """
    try:
        if name == "namenode":
            _namenode(layout, with_datanode)
        else:
            CHECKS[name](layout)
    except (KeyError, TypeError, ValueError) as error:
        # A bean that is asked while its daemon starts or ends lacks attributes.
        raise NotReadyError("is starting") from error


def fetch(layout: Layout, port: str, path: str) -> dict[str, Any]:
    """The JSON object at a path of a daemon's web interface.

    Raises:
        NotReadyError: there is no answer, or no JSON object.
    """
    try:
        with DIRECT.open(f"{layout.web(port)}{path}", timeout=SECONDS) as answer:
            found = json.load(answer)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotReadyError("does not answer yet") from error
    if not isinstance(found, dict):
        raise NotReadyError("does not answer yet")
    return found


def bean(layout: Layout, port: str, name: str) -> dict[str, Any]:
    """The attributes of a management bean ("service=NameNode,name=NameNodeInfo").

    Raises:
        NotReadyError: the daemon does not answer or has not registered it yet.
    """
    beans = fetch(layout, port, f"/jmx?qry=Hadoop:{name}").get("beans") or []
    if not beans:
        raise NotReadyError("is starting")
    found: dict[str, Any] = beans[0]
    return found


def _namenode(layout: Layout, with_datanode: bool) -> None:
    facts = bean(layout, "namenode_http", "service=NameNode,name=NameNodeInfo")
    if not with_datanode:
        return
    if facts["Safemode"]:
        raise NotReadyError("is in safe mode")
    state = bean(layout, "namenode_http", "service=NameNode,name=FSNamesystemState")
    if not state["NumLiveDataNodes"]:
        raise NotReadyError("has no DataNode yet")


def _datanode(layout: Layout) -> None:
    # The NameNode's list would not do: it shows a DataNode that was killed for some time yet.
    facts = bean(layout, "datanode_http", "service=DataNode,name=DataNodeInfo")
    actors = json.loads(facts["BPServiceActorInfo"])
    if not any(actor["ActorState"] == "RUNNING" for actor in actors):
        raise NotReadyError("has not registered with the NameNode yet")
    if not json.loads(facts["VolumeInfo"]):
        raise NotReadyError("has no volume yet")


def _resourcemanager(layout: Layout) -> None:
    info = fetch(layout, "resourcemanager_http", "/ws/v1/cluster/info")
    if info.get("clusterInfo", {}).get("state") != "STARTED":
        raise NotReadyError("is starting")


def _nodemanager(layout: Layout) -> None:
    own = fetch(layout, "nodemanager_http", "/ws/v1/node/info")["nodeInfo"]
    nodes = fetch(layout, "resourcemanager_http", "/ws/v1/cluster/nodes").get("nodes") or {}
    address = f"{HOST}:{layout.ports['nodemanager']}"
    for node in nodes.get("node", ()):
        # One that was killed counts as running for some time: it must have reported since this one started.
        if node["id"] == address and node["lastHealthUpdate"] >= own["nmStartupTime"]:
            if node["state"] == "RUNNING":
                return
            raise NotReadyError(f"is {node['state'].lower()}: {node.get('healthReport') or 'no reason is given'}")
    raise NotReadyError("has not registered with the ResourceManager yet")


def _historyserver(layout: Layout) -> None:
    fetch(layout, "historyserver_http", "/ws/v1/history/info")


CHECKS: dict[str, Callable[[Layout], None]] = {
    "datanode": _datanode,
    "resourcemanager": _resourcemanager,
    "nodemanager": _nodemanager,
    "historyserver": _historyserver,
}


def make_folders(layout: Layout) -> None:
    """The folders of HDFS that people expect, made as the superuser; those that are there keep their permissions.

    Raises:
        JobError: the NameNode refused.
    """
    user = quote(pwd.getpwuid(os.getuid()).pw_name)
    try:
        for path, mode in HDFS_FOLDERS.items():
            _put(layout, f"{path.format(user=user)}?op=MKDIRS&permission={mode}&user.name={user}")
        # The history server makes it for itself alone; others' jobs leave their histories below it.
        _put(layout, f"{HISTORY_FOLDER}?op=SETPERMISSION&permission=755&user.name={user}")
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        raise failure(layout, "namenode", f"refused to make a folder ({said})") from error
    except (OSError, http.client.HTTPException) as error:
        raise failure(layout, "namenode", f"made no folder ({error})") from error


def _put(layout: Layout, request: str) -> None:
    address = f"{layout.web('namenode_http')}/webhdfs/v1{request}"
    with DIRECT.open(urllib.request.Request(address, method="PUT"), timeout=SECONDS):
        pass
