"""What the resource manager knows of an application that waits: its queue's share, what is ahead of it, lost nodes.

https://hadoop.apache.org/docs/r3.4.2/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from jobs.runners.hadoop.yarn_rest import fetch_entries, fetch_object

WAITING_STATES = ("NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED")
"""States of an application whose master has not started."""
REQUEST_SECONDS = 3.0
MOST_DIAGNOSTICS = 240


def accepted_text(app: Mapping[str, Any], web: str) -> str:
    """Return why an application waits, as far as it is known: its queue, what is ahead there, what YARN says of it.

    Args:
        app: the resource manager's record of the application, in one of `WAITING_STATES`.
        web: the resource manager's address.
    """
    queue = str(app.get("queue") or "?")
    facts = [_share(web, queue), _ahead(app, web, queue), nodes_text(web), _diagnostics(app)]
    known = "; ".join(fact for fact in facts if fact)
    return f"{app.get('id')} waits in queue {queue} ({app.get('state')})" + (f": {known}" if known else "")


def nodes_text(web: str) -> str:
    """Return which nodes a cluster lacks; "" where it lacks none."""
    metrics = fetch_object(f"{web}/ws/v1/cluster/metrics", "clusterMetrics", timeout=REQUEST_SECONDS)
    if not metrics:
        return ""
    if metrics.get("activeNodes") == 0:
        return "no node is running"
    lost = [
        f"{metrics[key]} {word}" for key, word in (("lostNodes", "lost"), ("unhealthyNodes", "ill")) if metrics.get(key)
    ]
    return f"nodes: {metrics.get('activeNodes')} running, {', '.join(lost)}" if lost else ""


def pending_text(web: str, queue: str) -> str:
    """Return how many containers a queue is asked for that it has no room for; "" where there are none."""
    pending = _queue(web, queue).get("pendingContainers")
    return (
        f"containers that queue {queue} has no room for: {pending}" if isinstance(pending, int) and pending > 0 else ""
    )


def _share(web: str, queue: str) -> str:
    """The part of the cluster that a queue may take and has taken, by the capacity scheduler."""
    found = _queue(web, queue)
    share, used = found.get("absoluteCapacity"), found.get("absoluteUsedCapacity")
    if not isinstance(share, int | float) or not isinstance(used, int | float):
        return ""
    most = found.get("absoluteMaxCapacity")
    up_to = f", at most {most:.0f} %" if isinstance(most, int | float) and most != share else ""
    return f"the queue has {share:.0f} % of the cluster{up_to}, {used:.0f} % are in use"


def _queue(web: str, name: str) -> dict[str, Any]:
    info = fetch_object(f"{web}/ws/v1/cluster/scheduler", "scheduler", "schedulerInfo", timeout=REQUEST_SECONDS)
    return next((queue for queue in _queues(info) if name in (queue.get("queueName"), queue.get("queuePath"))), {})


def _queues(info: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All queues below one; one alone may stand without a list around it."""
    below = info.get("queues")
    children = below.get("queue") if isinstance(below, dict) else None
    for child in children if isinstance(children, list) else [children]:
        if isinstance(child, dict):
            yield child
            yield from _queues(child)


def _ahead(app: Mapping[str, Any], web: str, queue: str) -> str:
    """How many applications of the queue run, and how many wait since before this one."""
    address = f"{web}/ws/v1/cluster/apps?queue={quote(queue)}&states=ACCEPTED,RUNNING"
    others = fetch_entries(address, "apps", "app", timeout=REQUEST_SECONDS)
    others = [other for other in others if other.get("id") != app.get("id")]
    running = sum(other.get("state") == "RUNNING" for other in others)
    began = app.get("startedTime") or 0
    ahead = sum(other.get("state") == "ACCEPTED" and (other.get("startedTime") or 0) < began for other in others)
    return f"applications there: {running} running, {ahead} waiting before this one" if running or ahead else ""


def _diagnostics(app: Mapping[str, Any]) -> str:
    """What YARN itself says of the wait, without times and the details of resources."""
    text = re.sub(r"^\[[^\]]*\]\s*", "", str(app.get("diagnostics") or "").strip())
    text = re.split(r"\s*Details\s*:", text, maxsplit=1)[0]
    return " ".join(text.split())[:MOST_DIAGNOSTICS]
