"""What the nodes are like, asked once per run: Python, packages, cores, free memory, numerics.

The first job's map tasks say it before they read any data, so that asking costs no job (one costs as much as a round of
a small net); ``runtime.hadoop.preflight: job`` asks by a job of its own. A node without Python or numpy fails that job,
and `jobs.runners.hadoop.diagnosis` says so.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from jobs.runners.lines import Line, decode_record, encode_record
from nnlib.core import numerics
from nnlib.core.errors import JobError
from nnlib.core.machine import free_memory_mb

PREFLIGHT = "preflight"
"""The phase of a job that does nothing else."""

SAME = ("numpy", "numerics")
"""What must be alike on all nodes for equal bits."""


def node_reports(values: Iterable[bytes]) -> list[dict[str, Any]]:
    """What tasks said of their nodes, one a node, sorted by name."""
    hosts = {record["host"]: record for _, record in map(decode_record, values)}
    return [hosts[host] for host in sorted(hosts)]


def check_nodes(nodes: Iterable[Mapping[str, Any]], *, strict: bool) -> None:
    """Refuse nodes that would compute other bits than the rest, where bits matter (``runtime.numerics: strict``)."""
    if not strict:
        return
    for fact in SAME:
        groups: dict[str, list[str]] = {}
        for node in nodes:
            groups.setdefault(str(node[fact]), []).append(node["host"])
        if len(groups) > 1:
            found = "; ".join(f"{value} on {', '.join(hosts[:5])}" for value, hosts in sorted(groups.items()))
            raise JobError(
                f"the nodes differ in {fact}: {found}",
                hint="use one packed environment, and set OPENBLAS_CORETYPE where processors differ; or set "
                "runtime.numerics to loose to give up equal bits",
            )


NODE_KEY = b"!node"
"""Of the lines that say what a node is like; like errors', they sort before all slices."""


def node_line(worker: int) -> Line:
    """What this task's node is like, for the driver: names, versions, cores, free memory, numerics."""
    import numpy
    import pyarrow

    facts = {
        "host": platform.node(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
        "cores": os.cpu_count(),
        "free_mb": free_memory_mb(),
        "numerics": numerics.fingerprint(),
        "started": round(time.time(), 3),
        "executable": sys.executable,
    }
    return NODE_KEY, encode_record(worker, facts)
