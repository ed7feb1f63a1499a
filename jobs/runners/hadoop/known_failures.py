"""Known failures of Hadoop jobs: recognized by their logs, each with what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs.runners.hadoop.submission import NO_TICKET


@dataclass(frozen=True)
class Known:
    """A known failure: the pattern of its text, the message, what to do. ``lasting``: it would fail again."""

    text: re.Pattern[str]
    message: str
    hint: str
    lasting: bool = True


KNOWN = (
    Known(
        re.compile(r"nnjobs: this node has no (python\S*)"),
        "a node has no {0}",
        "let the environment bring its own Python: pack it without --no-python",
    ),
    Known(
        re.compile(r"nnjobs: this node has no Hadoop client"),
        "a node has no Hadoop client, so a driver there can submit no jobs",
        "let the NodeManagers pass HADOOP_HOME to containers (yarn.nodemanager.env-whitelist), or train without "
        "--detach",
    ),
    Known(
        re.compile(r'Cannot run program "([^"]*)"'),
        "a node has no Python {0}",
        "leave out runtime.hadoop.python_bin: then an environment travels with the job",
    ),
    Known(
        re.compile(r"ModuleNotFoundError: No module named '([^']*)'"),
        "the nodes' Python lacks the module {0}",
        "install it on every node (pip install nnjobs), or leave out runtime.hadoop.python_bin: then an environment "
        "travels with the job",
    ),
    Known(
        re.compile(r"version `(GLIBC_[0-9.]+)' not found|(cannot execute binary file|Exec format error)"),
        "the packed environment does not run on a node: its system is older or another ({0})",
        "pack on a machine like the nodes (nnjobs pack -o FILE, runtime.hadoop.archive), or use --python-bin",
    ),
    Known(
        re.compile(r"there is no run directory (\S+) on this node"),
        "a node does not reach the run directory {0}",
        "collective mode: name one that all nodes reach (--run-dir hdfs://..., or a folder of a shared file system)",
    ),
    Known(
        re.compile(r"running beyond (physical|virtual) memory limits"),
        "a task took more {0} memory than its container has",
        "raise runtime.hadoop.memory_mb, or lower runtime.memory_mb",
        lasting=False,
    ),
    Known(
        re.compile(r"^nnjobs: worker \d+ on \S+ ended by (SIG(?:KILL|SEGV|BUS|ILL|FPE))$", re.MULTILINE),
        "a worker's process was ended by {0}",
        "after SIGKILL see whether its node lacks memory (runtime.hadoop.memory_mb, runtime.memory_mb), after another "
        "whether a library does not fit its processor (nnjobs pack on a machine like the nodes)",
        lasting=False,
    ),
    Known(
        re.compile(r"Timed out after (\d+) secs|task timeout set: (\d+)s, taskTimedOut: true"),
        "a task hung: it showed no progress for {0} s",
        "see its node; a task that needs longer between two signs of life: raise runtime.task_timeout_seconds",
        lasting=False,
    ),
    Known(
        re.compile(r"to unknown queue: *(\S+)|Queue (\S+) (?:is not|does not|doesn't)"),
        "there is no queue {0} to submit to",
        "set runtime.hadoop.queue to one of the cluster's (yarn queue -status NAME)",
    ),
    Known(
        re.compile(r"Invalid resource request|(?:MAP|REDUCE) capability required is more than.*"),
        "no node is large enough for a task's container",
        "lower runtime.memory_mb or runtime.hadoop.memory_mb and vcores, use smaller batches, or, in collective mode, "
        "fewer workers in a container (runtime.hadoop.workers_per_task)",
    ),
    Known(
        re.compile(r"could only be written to 0 of the \d+ minReplication nodes"),
        "no DataNode takes what the job writes to HDFS",
        "see which run and have room (hdfs dfsadmin -report), then go on with --resume",
    ),
    Known(
        re.compile(r"Could not obtain block: \S+ file=(\S+)"),
        "a block of a file in HDFS is damaged or lost: {0}",
        "hdfs fsck shows which; when its DataNode is back, go on with --resume",
    ),
    Known(
        re.compile(r"(ConnectException|NoRouteToHost|UnknownHostException)[^\n]*"),
        "the cluster does not answer ({0})",
        "is it running, and does HADOOP_CONF_DIR describe it? (nnjobs doctor)",
        lasting=False,
    ),
    Known(
        re.compile(r"quota(?: \(directories and files\))? of (?:directory )?(/.*?) is exceeded"),
        "the HDFS quota of {0} is used up",
        "free some space there, or ask for more, then go on with --resume",
    ),
    Known(
        re.compile(r"(DSQuotaExceeded|NSQuotaExceeded|DiskQuotaExceeded|QuotaExceeded)\w*"),
        "the quota of an HDFS folder is used up",
        "free some space there, or ask for more, then go on with --resume",
    ),
    Known(
        NO_TICKET,
        "Hadoop's client has no good Kerberos ticket",
        "kinit, then go on with --resume; it reads files of tickets only (klist; KRB5CCNAME=FILE:...)",
    ),
)
