"""The cluster's own settings that a job has to fit to, as its resource manager has them."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.runners.hadoop.yarn_rest import fetch_object, resource_manager
from nnlib.storage.hdfs.hadoop_config import properties

EXPIRY_SECONDS = 600.0
"""Hadoop's default time after which a silent node, or a silent master, counts as lost."""


@dataclass(frozen=True)
class ClusterSettings:
    """What the resource manager does about lost nodes and large containers.

    A node that has sent no heartbeat for ``node_expiry_seconds`` is lost, with its containers; a job's master for
    ``master_expiry_seconds``. A container has at most ``largest_mb`` megabytes and ``largest_vcores``; None is
    for what is not known.
    """

    node_expiry_seconds: float = EXPIRY_SECONDS
    master_expiry_seconds: float = EXPIRY_SECONDS
    largest_mb: int | None = None
    largest_vcores: int | None = None


def read_cluster_settings() -> ClusterSettings:
    """Return the cluster's settings: those of the running resource manager, else those of yarn-site.xml on this
    machine, which may be older, else Hadoop's defaults."""
    web = resource_manager()
    return ClusterSettings(
        node_expiry_seconds=_seconds(_number(web, "yarn.nm.liveness-monitor.expiry-interval-ms")),
        master_expiry_seconds=_seconds(_number(web, "yarn.am.liveness-monitor.expiry-interval-ms")),
        largest_mb=_number(web, "yarn.scheduler.maximum-allocation-mb"),
        largest_vcores=_number(web, "yarn.scheduler.maximum-allocation-vcores"),
    )


def _seconds(milliseconds: int | None) -> float:
    return EXPIRY_SECONDS if milliseconds is None else milliseconds / 1000


def _number(web: str | None, name: str) -> int | None:
    """A property whose value is plain digits, as durations in milliseconds are by default; None for another value."""
    stated = fetch_object(f"{web}/conf?name={name}", "property").get("value") if web is not None else None
    for text in (stated, properties().get(name)):
        if text is not None and str(text).isdecimal():
            return int(text)
    return None
