"""What a job asks YARN for where its tasks use GPUs, and clusters that have none to give."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.runners.hadoop import gpus
from jobs.runners.hadoop.gpus import gpu_properties, require_gpus
from nnlib.config.schema import Config
from nnlib.core.errors import JobError


def node(host: str, **resources: int) -> dict[str, Any]:
    """As YARN 3.4 tells of a node; ``gpu`` stands for yarn.io/gpu."""
    listed = [
        {"name": "yarn.io/gpu" if name == "gpu" else name, "resourceType": "COUNTABLE", "units": "", "value": value}
        for name, value in resources.items()
    ]
    total = {"memory": 4096, "vCores": 6, "resourceInformations": {"resourceInformation": listed}}
    return {"nodeHostName": host, "state": "RUNNING", "totalResource": total}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    monkeypatch.setattr(gpus, "fetch_entries", lambda address, *keys: answers)
    return answers


def test_map_tasks_alone_ask_for_gpus() -> None:
    assert gpu_properties(2) == {"mapreduce.map.resource.yarn.io/gpu": "2"}
    assert gpu_properties(0) == {}


def test_a_cluster_without_gpus_is_refused_in_one_line(nodes: list[dict[str, Any]]) -> None:
    nodes += [node("one", vcores=4), {"nodeHostName": "old"}]
    with pytest.raises(JobError, match=r"a task needs 1 GPU \(yarn\.io/gpu\).*it has no node with any") as refused:
        require_gpus(1, "http://rm:8088")
    assert refused.value.exit_code == 4 and "\n" not in refused.value.message
    nodes.append(node("two", vcores=4, gpu=2))
    require_gpus(2, "http://rm:8088")
    with pytest.raises(JobError, match=r"a task needs 3 GPUs .* the most are 2 of two"):
        require_gpus(3, "http://rm:8088")


def test_a_resource_manager_that_does_not_answer_refuses_nothing(nodes: list[dict[str, Any]]) -> None:
    require_gpus(1, "http://rm:8088")
    require_gpus(1, None)


def test_tasks_with_gpus_are_not_run_in_the_master() -> None:
    torch = {"kind": "torch", "factory": "torch-mlp"}
    with pytest.raises(ValueError, match=r"the master's container, which has no GPU"):
        Config.model_validate({"data": {"path": "d"}, "model": torch, "runtime": {"hadoop": {"gpus": 1, "uber": "on"}}})
