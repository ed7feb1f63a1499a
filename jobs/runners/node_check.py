"""Checks the nodes of a cluster once per run: Python, packages, cores, free memory, numerics.

The first job's map tasks report these before they read any data, so that the check costs no extra job (one costs as
much as a round of a small net); ``runtime.hadoop.preflight: job`` runs an extra job for it. A node without Python or
numpy fails that job, and `jobs.runners.hadoop.diagnosis` says so.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.runners.lines import Line, decode_record, encode_record
from nnlib.core.errors import JobError
from nnlib.core.machine import free_memory_mb

PREFLIGHT = "preflight"
"""The phase of a job that does nothing else."""

SAME = ("numpy", "numerics")
"""The facts that must be equal on all nodes for equal bits."""


def node_reports(values: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the reports of tasks on their nodes, one a node, sorted by name."""
    hosts = {record["host"]: record for _, record in map(decode_record, values)}
    return [hosts[host] for host in sorted(hosts)]


def check_nodes(nodes: Iterable[Mapping[str, Any]], *, strict: bool) -> None:
    """Raise `JobError` if some nodes would compute other bits than the rest, where bits matter (``strict``)."""
    if not strict:
        return
    for fact in SAME:
        groups: dict[str, list[str]] = {}
        for node in nodes:
            groups.setdefault(str(node[fact]), []).append(node["host"])
        if len(groups) > 1:
            values = "; ".join(f"{value} on {', '.join(hosts[:5])}" for value, hosts in sorted(groups.items()))
            raise JobError(
                f"the nodes differ in {fact}: {values}",
                hint="use one packed environment, and set OPENBLAS_CORETYPE where processors differ; or set "
                "runtime.numerics to loose to give up equal bits",
            )


NODE_KEY = b"!node"
"""Key of the lines that report on a node; like errors', they sort before all slices."""


def node_line(worker: int, numerics: Iterable[str], devices: Sequence[str] = ()) -> Line:
    """Return the line that reports on this task's node: names, versions, cores, free memory, and the ``numerics`` of
    the learners that the run has (`nnlib.training.learner.Learner.numerics`); the names of the ``devices`` it uses."""
    import numpy
    import pyarrow

    facts = {
        "host": platform.node(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
        "cores": os.cpu_count(),
        "free_mb": free_memory_mb(),
        "numerics": "+".join(sorted(numerics)),
        **({"devices": list(devices)} if devices else {}),
        "started": round(time.time(), 3),
        "executable": sys.executable,
    }
    return NODE_KEY, encode_record(worker, facts)
