"""A driver that a job of the cluster runs: watched, cancelled, gone on with, killed; the bits are those of inline."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from failures import running_applications, wait_until
from scene import HOME, MINUTES, inline, write_data

from jobs.__main__ import main
from jobs.minicluster.cluster import Cluster
from nnlib.run.run_state import RunState, run_state
from nnlib.storage import storage
from nnlib.storage.hdfs.hadoop_user import hadoop_user as user

DATA = f"{HOME}/data of detached runs"

EXPERIMENT: dict[str, Any] = {
    "name": "detached",
    "workers": 2,
    "data": {"path": DATA},
    "model": {"hidden": [8]},
    "train": {"epochs": 4, "epochs_per_round": 1, "batch_size": 16},
}


@pytest.fixture
def experiment(used_hadoop: Cluster, hadoop_env: dict[str, str], tmp_path: Path) -> Iterator[Path]:
    write_data(DATA)
    path = tmp_path / "detached.yaml"
    path.write_text(json.dumps(EXPERIMENT), encoding="utf-8")
    yield path
    storage(DATA).delete("")


def detached(experiment: Path, run: str, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capfd.readouterr()
    code = main(["train", str(experiment), "-r", "hadoop", "--detach", "--run-dir", run, "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    begun: dict[str, Any] = json.loads(out.splitlines()[-1])
    return begun


def ended(run: str) -> RunState:
    wait_until(lambda: run_state(run).is_over, "the run has ended", MINUTES)
    return run_state(run)


def nothing_left(cluster: Cluster) -> None:
    wait_until(lambda: not running_applications(cluster), "no application runs", MINUTES)
    assert storage(f"hdfs:///user/{user()}/.nnjobs/runs").names() == []


@pytest.mark.full
def test_a_detached_run_is_cancelled_and_gone_on_with(
    used_hadoop: Cluster, experiment: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = f"{HOME}/runs/{tmp_path.name}"
    begun = detached(experiment, run, capfd)
    assert begun["state"] == "running" and begun["process"] != os.getpid()
    assert main(["train", str(experiment), "-r", "hadoop", "--detach", "--run-dir", run, "--resume"]) == 4
    assert "another driver is training this run" in capfd.readouterr().err
    assert main(["status", run]) == 0
    assert ": running\n  round" in capfd.readouterr().out
    assert main(["cancel", run]) == 0
    state = run_state(run)
    assert (state.state, state.exit_code) == ("interrupted", 130)
    nothing_left(used_hadoop)
    assert main(["logs", run]) == 0
    assert "RunStarted" in capfd.readouterr().out
    assert main(["train", "--resume", "--run-dir", run, "-r", "inline", "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["model_sha256"] == inline(EXPERIMENT, tmp_path)


@pytest.mark.full
def test_a_driver_that_is_killed_is_followed_by_another(
    used_hadoop: Cluster, experiment: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = f"{HOME}/runs/{tmp_path.name}"
    begun = detached(experiment, run, capfd)
    wait_until(lambda: run_state(run).committed > 0, "a round is committed", MINUTES)
    os.kill(begun["process"], signal.SIGKILL)
    assert ended(run).state == "finished"
    nothing_left(used_hadoop)
    assert main(["logs", run, "--worker", "1", "--round", "1"]) == 0
    assert "nnjobs: worker 1 on" in capfd.readouterr().out
    assert main(["train", "--resume", "--run-dir", run, "--json"]) == 0  # shows the result
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["model_sha256"] == inline(EXPERIMENT, tmp_path)
