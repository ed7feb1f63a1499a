"""GPUs of a cluster: how a job asks YARN for them, and whether the cluster has any to give.

https://hadoop.apache.org/docs/r3.4.2/hadoop-yarn/hadoop-yarn-site/UsingGpus.html
"""

from __future__ import annotations

from typing import Any

from jobs.runners.hadoop.yarn_rest import fetch_entries
from nnlib.core.errors import JobError

GPU = "yarn.io/gpu"
"""YARN's name of the resource."""


def gpu_properties(gpus: int) -> dict[str, str]:
    """Return the properties of a job whose map tasks each use ``gpus`` GPUs. Its reducers and its master use none."""
    return {f"mapreduce.map.resource.{GPU}": str(gpus)} if gpus else {}


def require_gpus(gpus: int, web: str | None) -> None:
    """Raise `JobError` where no running node has ``gpus`` GPUs for containers: YARN would let the job wait forever, or
    refuse it once its master runs. ``web`` is the resource manager's address; where it does not answer, nothing is
    known."""
    nodes = [] if web is None else fetch_entries(f"{web}/ws/v1/cluster/nodes?states=RUNNING", "nodes", "node")
    counts = {str(node.get("nodeHostName")): _gpus_of(node) for node in nodes}
    if not counts or max(counts.values()) >= gpus:
        return
    most = max(counts, key=lambda host: counts[host])
    has = f"the most are {counts[most]} of {most}" if counts[most] else "it has no node with any"
    raise JobError(
        f"a task needs {gpus} GPU{'s' * (gpus > 1)} ({GPU}), and the cluster has no node with that many: {has}",
        hint="set runtime.hadoop.gpus to 0 to compute on the CPU, or have the cluster's GPU plugin turned on "
        "(yarn.nodemanager.resource-plugins, yarn.resource-types)",
        key="runtime.hadoop.gpus",
    )


def _gpus_of(node: dict[str, Any]) -> int:
    """The GPUs that a node has for containers, in use or not; 0 where YARN says nothing of them."""
    try:
        resources = node["totalResource"]["resourceInformations"]["resourceInformation"]
        return sum(int(each["value"]) for each in resources if each["name"] == GPU)
    except (KeyError, TypeError, ValueError):
        return 0
