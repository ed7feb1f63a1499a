"""The cluster's own settings: the running resource manager's, else yarn-site.xml's, else Hadoop's defaults."""

from __future__ import annotations

from pathlib import Path

from played_hadoop import Yarn, configured

from jobs.runners.hadoop.cluster_settings import ClusterSettings, read_cluster_settings

MANAGER = "yarn.resourcemanager.webapp.address"
SITE = {"yarn.nm.liveness-monitor.expiry-interval-ms": "30000", "yarn.scheduler.maximum-allocation-mb": "2048"}


def answer(value: str) -> dict[str, dict[str, str]]:
    return {"property": {"key": "the one that was asked for", "value": value}}


def test_the_resource_manager_knows_better_than_a_file(hadoop_home: Path, yarn: tuple[str, type[Yarn]]) -> None:
    host, handler = yarn
    configured(hadoop_home, {MANAGER: host, **SITE})
    handler.answers = {"/conf": [answer("20000"), answer("900000"), answer("3072"), answer("4")]}
    assert read_cluster_settings() == ClusterSettings(20.0, 900.0, 3072, 4)
    asked = [path.partition("name=")[2] for _, path, _ in handler.heard]
    assert asked == [
        "yarn.nm.liveness-monitor.expiry-interval-ms",
        "yarn.am.liveness-monitor.expiry-interval-ms",
        "yarn.scheduler.maximum-allocation-mb",
        "yarn.scheduler.maximum-allocation-vcores",
    ]


def test_without_its_answer_the_file_counts_and_then_hadoops_defaults(hadoop_home: Path) -> None:
    configured(hadoop_home, SITE)
    assert read_cluster_settings() == ClusterSettings(30.0, 600.0, 2048, None)
    configured(hadoop_home, {"yarn.nm.liveness-monitor.expiry-interval-ms": "10m"})  # a unit: not understood
    assert read_cluster_settings() == ClusterSettings(600.0, 600.0, None, None)
