"""A splitting study on a real cluster: the bits of one in this process, thousands of partitions in one job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from jobs.minicluster.cluster import Cluster
from nnlib.run.directory import RunDirectory
from nnlib.run.journal import read_events
from nnlib.run.run_events import JobEvent
from nnlib.storage import storage

HOME = "hdfs:///user/tests/splitting"
DATA = f"{HOME}/digits"
CONFIG = """
name: cut
workers: 4
data: {{path: '{data}'}}
sampling: {{streams: shared}}
model: {{hidden: {hidden}}}
train: {{batch_size: 64, lr: 0.02, epochs: 1, epochs_per_round: 1}}
splitting: {{methods: [random], random: {partitions}, whole_epochs: 2}}
"""


@pytest.fixture(scope="module")
def cluster(used_hadoop: Cluster, digits: Path) -> Cluster:
    """The cluster with the digits in HDFS."""
    storage(DATA).write_all({path.name: path.read_bytes() for path in sorted(digits.iterdir())})
    return used_hadoop


def study(folder: Path, output: str, capfd: Any, hidden: list[int], partitions: int, *more: str) -> dict[str, Any]:
    path = folder / "cut.yaml"
    path.write_text(CONFIG.format(data=DATA, hidden=hidden, partitions=partitions), encoding="utf-8")
    capfd.readouterr()
    code = main(["split-study", str(path), "-o", output, "--json", *more])
    out, err = capfd.readouterr()
    assert code == 0, err
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def models(address: str) -> str:
    final = RunDirectory.open(address).final()
    assert final is not None
    return final.model_sha256


def test_a_cluster_finds_what_this_process_finds(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    here = study(tmp_path, "here", capfd, [4, 4], 5)
    there = study(tmp_path, f"{HOME}/there", capfd, [4, 4], 5, "-r", "hadoop")
    assert models("here/split") == models(f"{HOME}/there/split")
    assert here["methods"] == there["methods"] and here["correlations"] == there["correlations"]


@pytest.mark.full
def test_two_thousand_partitions_in_one_job(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    found = study(tmp_path, f"{HOME}/many", capfd, [8, 8, 8], 2000, "-r", "hadoop")
    assert found["partitions"] == 2000
    events = read_events(RunDirectory.open(f"{HOME}/many/split"))
    jobs = [each.event.job for each in events if isinstance(each.event, JobEvent)]
    trained = [job for job in jobs if job.startswith("train")]
    assert len(trained) == 1, "all partitions are trials of the same job"
    print("seconds of the round:", found["seconds"]["split"])
