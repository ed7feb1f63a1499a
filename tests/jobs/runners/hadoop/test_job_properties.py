"""What a job asks of the cluster: the size of its containers, and its properties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_job import small_spec, with_hadoop

from jobs.mapreduce.demand import task_demand
from jobs.runners.hadoop.cluster_settings import ClusterSettings
from jobs.runners.hadoop.job_properties import Container, container, job_properties, require_fit
from nnlib.config.schema import Config
from nnlib.core.errors import JobError
from nnlib.run.spec import JobSpec


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return small_spec(tmp_path)


def size(spec: JobSpec) -> Container:
    return container(spec.config.runtime, task_demand(spec))


def properties(spec: JobSpec, *, uber: bool = False) -> dict[str, str]:
    runtime = spec.config.runtime
    return job_properties(runtime, 4, size(spec), name="n", reducers=2, uber=uber, lines_per_map=1)


def test_a_small_model_takes_the_least_container(spec: JobSpec) -> None:
    resources = size(spec)
    assert (resources.memory_mb, resources.vcores) == (512, 1)
    assert 64 <= resources.heap_mb <= 128


def test_memory_grows_with_model_batch_and_rows(spec: JobSpec) -> None:
    def with_keys(**sections: dict[str, Any]) -> int:
        plain = spec.config.model_dump(mode="json")
        config = Config.model_validate({**plain, **{name: plain[name] | keys for name, keys in sections.items()}})
        grown = replace(spec, config=config, dataset=replace(spec.dataset, shards=spec.dataset.shards * 20_000))
        return size(grown).memory_mb

    small = with_keys(runtime={"memory_mb": 300})
    assert with_keys(runtime={"memory_mb": 800}) == small + 1000
    assert with_keys(runtime={"memory_mb": 300}, model={"hidden": [4000, 4000]}) > small + 8 * 60
    assert with_keys(runtime={"memory_mb": 300}, train={"batch_size": 1_000_000}) > small + 400


def test_what_the_configuration_says_wins(spec: JobSpec) -> None:
    wanted = with_hadoop(spec, memory_mb=3000, vcores=2, heap_mb=500, queue="research", speculative=False)
    found = properties(wanted)
    assert found["mapreduce.map.memory.mb"] == found["mapreduce.reduce.memory.mb"] == "3000"
    assert found["mapreduce.map.cpu.vcores"] == "2"
    assert found["mapreduce.map.java.opts"].startswith("-Xmx500m -XX:TieredStopAtLevel=1")
    assert found["mapreduce.job.queuename"] == "research"
    assert found["mapreduce.map.speculative"] == "false"
    assert properties(with_hadoop(spec, jobconf={"mapreduce.map.memory.mb": "7"}))["mapreduce.map.memory.mb"] == "7"
    assert "mapreduce.job.queuename" not in properties(spec)


def test_retries_and_timeout_are_hadoops(spec: JobSpec) -> None:
    assert properties(spec)["mapreduce.task.timeout"] == "600000"
    runtime = spec.config.runtime.model_copy(update={"task_timeout_seconds": 12.5, "retries": 0})
    found = properties(replace(spec, config=spec.config.model_copy(update={"runtime": runtime})))
    assert found["mapreduce.task.timeout"] == "12500"
    assert found["mapreduce.map.maxattempts"] == found["mapreduce.reduce.maxattempts"] == "1"


def test_the_master_that_takes_tasks_in_has_room_for_them(spec: JobSpec) -> None:
    alone, uber = properties(spec), properties(spec, uber=True)
    key = "yarn.app.mapreduce.am.resource.mb"
    assert int(uber[key]) >= int(uber["mapreduce.map.memory.mb"])  # else Hadoop takes no task in
    assert int(uber[key]) > int(alone[key])
    assert (uber["mapreduce.job.ubertask.enable"], alone["mapreduce.job.ubertask.enable"]) == ("true", "false")


def test_a_node_that_does_not_answer_is_not_waited_for_as_long_as_hadoop_does(spec: JobSpec) -> None:
    found = properties(spec)
    assert found["yarn.client.nodemanager-connect.max-wait-ms"] == "10000"
    assert found["yarn.client.nodemanager-connect.retry-interval-ms"] == "1000"


def test_a_container_larger_than_the_largest_is_refused_before_the_job_starts() -> None:
    large = Container(memory_mb=3072, heap_mb=64, vcores=4)
    require_fit(large, ClusterSettings(largest_mb=3072, largest_vcores=4))
    require_fit(large, ClusterSettings())  # nothing is known of its containers
    with pytest.raises(JobError, match="needs a container of 3072 MB, and the cluster's largest has 3071 ") as caught:
        require_fit(large, ClusterSettings(largest_mb=3071, largest_vcores=4))
    assert "yarn.scheduler.maximum-allocation-mb" in str(caught.value) and "runtime.memory_mb" in str(caught.value.hint)
    with pytest.raises(JobError, match="4 vcores, and the cluster's largest has 3 "):
        require_fit(large, ClusterSettings(largest_mb=3072, largest_vcores=3))


def test_of_two_namenodes_the_dead_one_is_not_waited_for(
    spec: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hadoop's client would try to connect to it for two minutes before it asks the other."""
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    assert properties(spec)["dfs.client.retry.policy.enabled"] == "true"
    entry = "<property><name>dfs.ha.namenodes.pair</name><value>nn0,nn1</value></property>"
    (tmp_path / "hdfs-site.xml").write_text(f"<configuration>{entry}</configuration>")
    assert not [name for name in properties(spec) if name.startswith("dfs.client.retry.policy")]
