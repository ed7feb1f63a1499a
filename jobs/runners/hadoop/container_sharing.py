"""Decides how many workers of a collective job share a container: one a node starts sooner than one a worker."""

from __future__ import annotations

from jobs.runners.hadoop.cluster_settings import ClusterSettings
from jobs.runners.hadoop.job_properties import LEAST_MB, container
from jobs.runners.hadoop.yarn_rest import node_sizes, resource_manager
from jobs.runners.request import TaskDemand
from nnlib.config.schema import Runtime

LARGEST_MB, LARGEST_VCORES = 8192, 4
"""Hadoop's defaults of the largest container."""


def workers_per_task(runtime: Runtime, demand: TaskDemand, workers: int, cluster: ClusterSettings) -> int:
    """Return how many of ``workers`` share a container of a ``cluster``; ``demand`` is that of one worker.

    That is what ``runtime.hadoop.workers_per_task`` says. ``auto``: the workers divided by the nodes, if every node has
    room for such a container besides the job's master, else as many as there is room for; 1 where the nodes are not
    known.
    """
    hadoop = runtime.hadoop
    if hadoop.workers_per_task != "auto":
        return min(hadoop.workers_per_task, workers)
    if workers == 1 or hadoop.memory_mb is not None or hadoop.vcores is not None:
        return 1
    nodes = node_sizes(resource_manager())
    if not nodes:
        return 1
    memory = min(cluster.largest_mb or LARGEST_MB, min(mb for mb, _ in nodes) - LEAST_MB)
    vcores = min(cluster.largest_vcores or LARGEST_VCORES, min(cores for _, cores in nodes) - 1)
    for count in range(-(-workers // len(nodes)), 1, -1):
        needed = container(runtime, demand, count)
        if needed.memory_mb <= memory and needed.vcores <= vcores:
            return count
    return 1
