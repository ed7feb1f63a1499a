"""The cluster's own settings that a job has to fit to, as its resource manager has them."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.runners.hadoop.yarn_rest import fetch_object, resource_manager
from nnlib.storage.hdfs.hadoop_config import properties

EXPIRY_SECONDS = 600.0
"""Hadoop's default time after which a silent node, or a silent master, counts as lost."""

LARGEST_MB, LARGEST_VCORES = 8192, 4
"""Hadoop's defaults of the largest container."""


@dataclass(frozen=True)
class ClusterSettings:
    """What the resource manager does about lost nodes and large containers.

    A node that has sent no heartbeat for ``node_expiry_seconds`` is lost, with its containers; a job's master for
    ``master_expiry_seconds``. A container has at most ``largest_mb`` megabytes and ``largest_vcores``.
    """

    node_expiry_seconds: float = EXPIRY_SECONDS
    master_expiry_seconds: float = EXPIRY_SECONDS
    largest_mb: int = LARGEST_MB
    largest_vcores: int = LARGEST_VCORES


def read_cluster_settings() -> ClusterSettings:
    """Return the cluster's settings: those of the running resource manager, else those of yarn-site.xml on this
    machine, which may be older, else Hadoop's defaults."""
    web = resource_manager()
    return ClusterSettings(
        node_expiry_seconds=_number(web, "yarn.nm.liveness-monitor.expiry-interval-ms", 1000 * EXPIRY_SECONDS) / 1000,
        master_expiry_seconds=_number(web, "yarn.am.liveness-monitor.expiry-interval-ms", 1000 * EXPIRY_SECONDS) / 1000,
        largest_mb=int(_number(web, "yarn.scheduler.maximum-allocation-mb", LARGEST_MB)),
        largest_vcores=int(_number(web, "yarn.scheduler.maximum-allocation-vcores", LARGEST_VCORES)),
    )


def _number(web: str | None, name: str, default: float) -> float:
    """A property whose value is plain digits, as durations in milliseconds are by default."""
    stated = fetch_object(f"{web}/conf?name={name}", "property").get("value") if web is not None else None
    for text in (stated, properties().get(name)):
        if text is not None and str(text).isdecimal():
            return float(text)
    return default
