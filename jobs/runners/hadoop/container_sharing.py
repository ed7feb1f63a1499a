"""How many workers of a group share a container on a cluster: one container a node starts sooner than one a worker."""

from __future__ import annotations

from jobs.mapreduce.demand import task_resources
from jobs.runners.hadoop.job_properties import LEAST_MB
from jobs.runners.hadoop.yarn_rest import node_sizes, resource_manager
from nnlib.run.spec import JobSpec
from nnlib.storage.hdfs.hadoop_config import properties

LARGEST = "yarn.scheduler.maximum-allocation-"
LARGEST_MB, LARGEST_VCORES = 8192, 4
"""Hadoop's defaults of the largest container."""


def workers_per_task(spec: JobSpec) -> int:
    """As ``runtime.hadoop.workers_per_task`` says. auto: the workers by the nodes, if every node has room for such a
    container beside the job's master, else as many as there is room for; one where the nodes are not known."""
    hadoop = spec.config.runtime.hadoop
    if hadoop.workers_per_task != "auto":
        return min(hadoop.workers_per_task, spec.workers)
    if spec.workers == 1 or hadoop.memory_mb is not None or hadoop.vcores is not None:
        return 1
    nodes = node_sizes(resource_manager())
    if not nodes:
        return 1
    memory = min(_largest("mb", LARGEST_MB), min(mb for mb, _ in nodes) - LEAST_MB)
    vcores = min(_largest("vcores", LARGEST_VCORES), min(cores for _, cores in nodes) - 1)
    for workers in range(-(-spec.workers // len(nodes)), 1, -1):
        needed = task_resources(spec, workers)
        if needed.memory_mb <= memory and needed.vcores <= vcores:
            return workers
    return 1


def _largest(of: str, default: int) -> int:
    """What yarn-site.xml allows a container, where it says so in plain digits."""
    text = properties().get(f"{LARGEST}{of}", "")
    return int(text) if text.isdecimal() else default
