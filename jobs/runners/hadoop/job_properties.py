"""The properties of a lean streaming job, and the size of its tasks' containers.

Streaming tasks are a JVM that only copies lines, and a Python that works: the JVM gets a small heap and compiles
quickly, the container has room for both. Hadoop's defaults (10 s for an answer to the client, seconds between
heartbeats, a heap of a gigabyte) are made for jobs of hours; a round can be seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.runners.hadoop.cluster_settings import ClusterSettings
from jobs.runners.request import TaskDemand
from nnlib.config.schema import Runtime
from nnlib.core.errors import JobError
from nnlib.storage.hdfs.hadoop_config import has_namenode_pair

MB = 1 << 20
PYTHON_MB = 192
"""A task's Python with numpy, scipy and pyarrow loaded, before it reads a row."""

JVM_MB = 128
"""What a small JVM takes besides its heap: classes, compiled code, threads, buffers."""

LEAST_MB = 512
"""Of a container: YARN's nodes give out memory in steps of this size or larger."""

HEAP_MB = 64
"""Of a task's JVM, which only passes lines on, without the lines themselves."""

LINE_COPIES = 4
"""The JVM holds a line about four times: as bytes, as text, in the sort buffer, on its way to the merge."""

MASTER_HEAP_MB = 192
"""Of the job's master (MRAppMaster), for a job of up to some hundred tasks; more tasks get more, see `master_heap`."""

TIMEOUT_SECONDS = 600.0
"""Hadoop's default: a task that reports no progress for this time is killed."""


NODE_WAIT_SECONDS, NODE_RETRY_SECONDS = 10.0, 1.0
"""For how long, and how often, a job's master tries to reach a node that does not answer, to start a container there or
to end one. Only then does it ask for another container. Hadoop's 180 s and 10 s are for nodes that are being restarted,
but a task costs less to start again than to wait for."""

UBER_MAPS = 9
"""At most this many map tasks share the master's container: Hadoop's default (mapreduce.job.ubertask.maxmaps)."""


@dataclass(frozen=True)
class Container:
    """The size of a task's container: ``memory_mb`` in all, of which ``heap_mb`` for the JVM's heap; ``vcores``."""

    memory_mb: int
    heap_mb: int
    vcores: int


def container(runtime: Runtime, demand: TaskDemand, workers: int = 1) -> Container:
    """Return the container of a task that holds ``workers`` workers, unless the configuration sets its size."""
    hadoop = runtime.hadoop
    heap = hadoop.heap_mb or HEAP_MB + -(-LINE_COPIES * demand.line_bytes // MB)
    shared = 0 if workers == 1 else PYTHON_MB  # of the process that the workers are forked from
    needed = heap + JVM_MB + shared + workers * (PYTHON_MB + demand.memory_mb)
    memory = hadoop.memory_mb or max(LEAST_MB, needed)
    return Container(memory, heap, hadoop.vcores or workers * runtime.blas_threads)


def require_fit(size: Container, cluster: ClusterSettings) -> None:
    """Raise `JobError` for a container that is larger than the largest of the ``cluster``, which would refuse the job,
    too, but only once its master runs."""
    for needed, most, unit, name in (
        (size.memory_mb, cluster.largest_mb, "MB", "mb"),
        (size.vcores, cluster.largest_vcores, "vcores", "vcores"),
    ):
        if most is not None and needed > most:
            raise JobError(
                f"a task needs a container of {needed} {unit}, and the cluster's largest has {most} "
                f"(yarn.scheduler.maximum-allocation-{name})",
                hint="lower runtime.memory_mb or runtime.hadoop.memory_mb and vcores, use smaller batches, or, in "
                "collective mode, fewer workers in a container (runtime.hadoop.workers_per_task)",
            )


def job_properties(
    runtime: Runtime,
    tasks: int,
    size: Container,
    *,
    name: str,
    reducers: int,
    uber: bool,
    lines_per_map: int,
) -> dict[str, str]:
    """Return the properties of one job, all but those that mrjob adds for sorted values.

    ``tasks`` is the number of lines in its plan; ``size`` is that of a task's container. The properties in the
    configuration's ``jobconf`` win.
    """
    hadoop = runtime.hadoop
    options = hadoop.jvm_options
    jvm = f"-Xmx{size.heap_mb}m {options}".strip()
    heap = master_heap(tasks) + (size.heap_mb if uber else 0)
    master = heap + JVM_MB
    if uber:  # Hadoop wants a master's container as large as the tasks' that it takes in
        master = max(size.memory_mb + MASTER_HEAP_MB, master)
    timeout = runtime.task_timeout_seconds or TIMEOUT_SECONDS
    properties = {
        "mapreduce.job.name": name,
        "mapreduce.job.reduces": str(reducers),
        "mapreduce.input.lineinputformat.linespermap": str(lines_per_map),
        "stream.map.input.ignoreKey": "true",  # else a worker's line would begin with its offset in the plan
        "mapreduce.map.memory.mb": str(size.memory_mb),
        "mapreduce.reduce.memory.mb": str(size.memory_mb),
        "mapreduce.map.cpu.vcores": str(size.vcores),
        "mapreduce.reduce.cpu.vcores": str(size.vcores),
        "mapreduce.map.java.opts": jvm,
        "mapreduce.reduce.java.opts": jvm,
        "yarn.app.mapreduce.am.resource.mb": str(max(master, LEAST_MB)),
        "yarn.app.mapreduce.am.resource.cpu-vcores": str(size.vcores if uber else 1),
        "yarn.app.mapreduce.am.command-opts": f"-Xmx{heap}m {options}".strip(),
        "mapreduce.task.io.sort.mb": str(max(8, size.heap_mb // 4)),
        "mapreduce.task.timeout": str(int(1000 * timeout)),
        # Hadoop looks every 30 s; a short timeout would be half a minute late.
        "mapreduce.task.timeout.check-interval-ms": str(int(1000 * min(30.0, max(timeout / 5, 1.0)))),
        "mapreduce.map.maxattempts": str(runtime.retries + 1),
        "mapreduce.reduce.maxattempts": str(runtime.retries + 1),
        "mapreduce.map.speculative": _flag(hadoop.speculative),
        "mapreduce.reduce.speculative": _flag(hadoop.speculative),
        "mapreduce.job.ubertask.enable": _flag(uber),
        "mapreduce.job.ubertask.maxmaps": str(max(tasks, UBER_MAPS)),
        # A reducer started before all maps are done would only hold a container while the training goes on.
        "mapreduce.job.reduce.slowstart.completedmaps": "1.0",
        # The client asks about a job of seconds more often than once a second.
        "mapreduce.client.progressmonitor.pollinterval": "100",
        "yarn.app.mapreduce.am.scheduler.heartbeat.interval-ms": "100",
        "yarn.client.nodemanager-connect.max-wait-ms": str(int(1000 * NODE_WAIT_SECONDS)),
        "yarn.client.nodemanager-connect.retry-interval-ms": str(int(1000 * NODE_RETRY_SECONDS)),
        "mapreduce.fileoutputcommitter.algorithm.version": "2",
        "mapreduce.fileoutputcommitter.marksuccessfuljobs": "true",  # the driver looks for _SUCCESS
        "mapreduce.output.fileoutputformat.compress": "false",
    }
    if not has_namenode_pair():
        # Master and tasks wait for a NameNode that restarts, 20 times a second and 20 times 5 s. Else a job fails by
        # the first broken connection: that of its commit, for example. Of two NameNodes they ask the other one, after
        # pauses of its own; so long a wait for the dead one would come first.
        properties["dfs.client.retry.policy.enabled"] = "true"
        properties["dfs.client.retry.policy.spec"] = "1000,20,5000,20"
    if hadoop.queue is not None:
        properties["mapreduce.job.queuename"] = hadoop.queue
    return properties | hadoop.jobconf


def master_heap(tasks: int) -> int:
    """Return the megabytes of the master's heap: a base, and about 100 kB for every task."""
    return MASTER_HEAP_MB + tasks // 10


def _flag(value: bool) -> str:
    return "true" if value else "false"
