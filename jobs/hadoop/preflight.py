"""What the nodes are like, asked once per run: Python, packages, cores, free memory, numerics.

The first job's map tasks say it before they read any data, so that asking costs no job (one costs as much as a round of
a small net); ``runtime.hadoop.preflight: job`` asks by a job of its own. A node without Python or numpy fails that job,
and `jobs.hadoop.failure` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nnlib.errors import JobError
from nnlib.wire import decode_record

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
