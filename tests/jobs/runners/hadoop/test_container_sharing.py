"""How many workers share a container, by the cluster's nodes and the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from played_hadoop import Yarn, configured

from jobs.mapreduce.demand import task_demand
from jobs.runners.hadoop.cluster_settings import read_cluster_settings
from jobs.runners.hadoop.container_sharing import workers_per_task
from jobs.runners.hadoop.job_properties import Container, container
from nnlib.config.schema import Config
from nnlib.data.dataset import Dataset
from nnlib.data.synthetic import SynthOptions, synthesize
from nnlib.run.planner import make_spec
from nnlib.run.spec import JobSpec

MANAGER = "yarn.resourcemanager.webapp.address"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "blobs"
    synthesize(str(path), SynthOptions(kind="blobs", rows=400, features=12, classes=3, shards=8))
    return f"file://{path}"


def spec(data: str, workers: int, **hadoop: Any) -> JobSpec:
    experiment = {"name": "tiny", "workers": workers, "data": {"path": data}, "model": {"hidden": [8]}}
    config = Config.model_validate({**experiment, "runtime": {"hadoop": hadoop}})
    return make_spec(config, Dataset.open(data))[0]


def shared_by(spec: JobSpec) -> int:
    return workers_per_task(spec.config.runtime, task_demand(spec), spec.workers, read_cluster_settings())


def size(spec: JobSpec, workers: int) -> Container:
    return container(spec.config.runtime, task_demand(spec), workers)


def node(mb: int, vcores: int, used: int = 0) -> dict[str, int]:
    """As YARN tells of one that has given out ``used`` MB and vcores."""
    return {
        "availMemoryMB": mb - used,
        "usedMemoryMB": used,
        "availableVirtualCores": vcores - min(used, vcores),
        "usedVirtualCores": min(used, vcores),
    }


@pytest.mark.parametrize(
    ("workers", "nodes", "shared"),
    [
        (4, [node(4096, 6)], 4),
        (4, [node(4096, 6, used=4096)], 4),  # what others have taken will be given back
        (4, [node(4096, 6), node(4096, 6)], 2),
        (5, [node(4096, 6), node(4096, 6)], 3),
        (4, [node(65536, 64)] * 4, 1),
        (4, [node(65536, 64)] * 9, 1),
        (8, [node(65536, 64)], 4),  # no container may have more vcores
        (8, [node(65536, 3), node(65536, 64)], 2),  # beside the master
        (4, [node(1000, 64)], 1),
        (4, [], 1),
        (1, [node(4096, 6)], 1),
    ],
)
def test_auto_is_a_task_a_node_where_there_is_room(
    workers: int,
    nodes: list[dict[str, int]],
    shared: int,
    data: str,
    hadoop_home: Path,
    yarn: tuple[str, type[Yarn]],
) -> None:
    host, handler = yarn
    handler.answers = {"/ws/v1/cluster/nodes": {"nodes": {"node": nodes} if nodes else None}}
    assert shared_by(spec(data, workers)) == 1  # nobody says where the resource manager is
    configured(hadoop_home, {MANAGER: host})
    assert shared_by(spec(data, workers)) == shared


def test_what_the_configuration_says_wins(data: str, hadoop_home: Path, yarn: tuple[str, type[Yarn]]) -> None:
    host, handler = yarn
    handler.answers = {"/ws/v1/cluster/nodes": {"nodes": {"node": [node(65536, 64)]}}}
    configured(hadoop_home, {MANAGER: host, "yarn.scheduler.maximum-allocation-vcores": "64"})
    assert shared_by(spec(data, 8)) == 8
    configured(hadoop_home, {MANAGER: host, "yarn.scheduler.maximum-allocation-vcores": "${of.another.file}"})
    assert shared_by(spec(data, 8)) == 4  # Hadoop's own
    assert shared_by(spec(data, 8, workers_per_task=3)) == 3
    assert shared_by(spec(data, 2, workers_per_task=3)) == 2
    assert shared_by(spec(data, 8, memory_mb=2048)) == 1  # a container's, as it was asked for
    assert shared_by(spec(data, 8, vcores=2)) == 1


def test_a_shared_container_has_room_for_all_its_workers(data: str) -> None:
    one, four = (size(spec(data, 4), workers) for workers in (1, 4))
    assert four.heap_mb == one.heap_mb  # one JVM
    assert four.vcores == 4 * one.vcores
    jvm, python = 128, 192
    assert four.memory_mb >= four.heap_mb + jvm + 5 * python  # the workers', and what they are forked from
    given = size(spec(data, 4, memory_mb=900, vcores=2), 4)
    assert (given.memory_mb, given.vcores) == (900, 2)
