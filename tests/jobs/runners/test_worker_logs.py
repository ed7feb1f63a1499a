"""`nnjobs logs`: the run's log, and a worker's, wherever its runner has left it; and why one is gone."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from driver_experiment import blobs, config
from played_hadoop import APPLICATION, Yarn, configured, hadoop_home, yarn
from shards import write_dataset

from jobs.__main__ import main
from jobs.driver import driver
from jobs.runners.hadoop.worker_logs import part_of
from jobs.runners.worker_logs import LogRequest, find_worker_log
from nnlib.core.errors import JobError
from nnlib.run.directory import RunDirectory
from nnlib.run.run_state import RunState
from nnlib.run.task_logs import TaskLogs
from nnlib.storage import storage

__all__ = ["hadoop_home", "yarn"]

JOB = APPLICATION.replace("application_", "job_")
CONTAINERS = "/ws/v1/node/containers"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, *blobs(90), shards=3, classes=3)
    return str(where)


@pytest.fixture(scope="module")
def finished(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("inline") / "run"
    driver.train(config(dataset, run, workers=2, train__epochs=4))
    return run


def on_cluster(run: Path, where: Path, mode: str = "rounds", *events: dict[str, Any]) -> Path:
    """The run as if a cluster had trained it."""
    spec = json.loads((run / "spec.json").read_text())
    spec["config"]["runtime"]["runner"] = "hadoop"
    spec["config"]["sync"]["mode"] = mode
    where.mkdir()
    for path in run.rglob("*"):
        if path.is_file():
            target = where / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (where / "spec.json").write_text(json.dumps(spec))
    lines = [json.dumps({"time": 1.0, "event": "job", **event}) + "\n" for event in events]
    (where / "events.jsonl").write_text("".join(lines))
    return where


def test_the_log_of_a_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", str(finished)]) == 0
    assert "RoundDone(round=2" in capsys.readouterr().out
    assert main(["logs", str(finished), "--follow"]) == 0
    assert "RunDone" in capsys.readouterr().out


def test_what_is_wrong_is_said(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", str(finished), "--worker", "2"]) == 2
    assert "the run has workers 0 to 1, no worker 2" in capsys.readouterr().err
    assert main(["logs", str(finished), "--round", "1"]) == 2
    assert "--round needs the worker" in capsys.readouterr().err
    assert main(["logs", str(finished), "--worker", "0", "--round", "4"]) == 2
    assert "round 4 has not begun" in capsys.readouterr().err
    assert main(["logs", str(finished), "--worker", "0"]) == 2
    assert "the runner inline runs all workers in the process of the driver" in capsys.readouterr().err


def test_a_local_worker(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    driver.train(config(dataset, run, workers=2, train__epochs=4, runtime__runner="local"))
    capsys.readouterr()
    assert main(["logs", str(run), "--worker", "1"]) == 4
    assert "worker 1 has written nothing" in capsys.readouterr().err
    kept = "== train 0, attempt 1 ==\nfirst\n== train 1, attempt 1 ==\nsecond\n"
    logs = TaskLogs(storage(str(run)))
    logs.add(1, "train 0, attempt 1", b"first\n")
    logs.add(1, "train 1, attempt 1", b"second\n")
    logs.flush()
    assert main(["logs", str(run), "--worker", "1"]) == 0
    assert capsys.readouterr().out == kept
    assert main(["logs", str(run), "--worker", "1", "--round", "2"]) == 0
    assert capsys.readouterr().out == "== train 1, attempt 1 ==\nsecond\n"


def test_a_local_worker_that_runs(finished: Path, tmp_path: Path) -> None:
    """What the running attempt has written so far is read where the driver works, and nowhere else."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    attempt = tmp_path / "scratch" / "job" / "step" / "0000" / "mapper" / "00001" / "attempt-0-0"
    attempt.mkdir(parents=True)
    (attempt / "stderr").write_text("so far\n")
    state = RunState(str(run), "running", runner="local", worker_count=2, round=1, job="train 1", host=platform.node())
    state = replace(state, task_folder=str(tmp_path / "scratch"))
    directory = RunDirectory.open(str(run))
    assert find_worker_log(LogRequest(directory, state, 1)).text == "so far\n"
    assert find_worker_log(LogRequest(directory, state, 1, 2)).text == "so far\n"
    with pytest.raises(JobError, match="worker 1 has written nothing in round 1"):
        find_worker_log(LogRequest(directory, state, 1, 1))
    with pytest.raises(JobError, match="worker 1 runs on elsewhere: what a running task writes is only seen there"):
        find_worker_log(LogRequest(directory, replace(state, host="elsewhere"), 1))


def played(host: str, base: str) -> dict[str, Any]:
    """A job of two map tasks: one of workers 0 and 1, one of worker 1's second attempt."""
    node = {"nodeHttpAddress": host}
    return {
        f"/ws/v1/cluster/apps/{APPLICATION}": {"app": {"state": "FINISHED"}},
        f"{base}/tasks": {"tasks": {"task": [{"id": "task_0"}, {"id": "task_1"}]}},
        f"{base}/tasks/task_0/attempts": {
            "taskAttempts": {"taskAttempt": [{"id": "a0", "startTime": 5, "assignedContainerId": "c0", **node}]}
        },
        f"{base}/tasks/task_1/attempts": {
            "taskAttempts": {"taskAttempt": {"id": "a1", "startTime": 3, "assignedContainerId": "c1", **node}}
        },
    }


def test_a_worker_of_an_ended_job(
    finished: Path,
    tmp_path: Path,
    yarn: tuple[str, type[Yarn]],
    hadoop_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host, server = yarn
    configured(hadoop_home, {"yarn.resourcemanager.webapp.address": host, "mapreduce.jobhistory.webapp.address": host})
    base = f"/ws/v1/history/mapreduce/jobs/{JOB}"
    first = "nnjobs: worker 0 on w1\nzero\nnnjobs: worker 1 on w1\none\n"
    server.answers = {
        **played(host, base),
        f"{CONTAINERS}/c0/logs/stderr": first,
        "/ws/v1/history/containerlogs/c1/stderr": "LogContents:\nnnjobs: worker 2 on w2\ntwo\nEnd of LogType:stderr",
    }
    run = on_cluster(finished, tmp_path / "run", "rounds", {"job": "train 1", "application": APPLICATION})
    assert main(["logs", str(run), "--worker", "1"]) == 0
    said = capsys.readouterr()
    assert said.out == "nnjobs: worker 1 on w1\none\n" and "from a0 in c0" in said.err
    assert main(["logs", str(run), "--worker", "1", "--round", "1"]) == 4
    assert "the run's events have no job train 0: it has not begun" in capsys.readouterr().err

    whole = on_cluster(finished, tmp_path / "group", "collective", {"job": "collective 0", "application": APPLICATION})
    assert main(["logs", str(whole), "--worker", "0", "--round", "2"]) == 0
    assert capsys.readouterr().out == first  # workers of one container write at the same time

    server.answers = played(host, base)
    assert main(["logs", str(run), "--worker", "1"]) == 4
    assert "none of the 2 logs of map tasks" in capsys.readouterr().err
    server.answers = {}
    assert main(["logs", str(run), "--worker", "1"]) == 4
    assert f"YARN does not know the tasks of {APPLICATION} any more" in capsys.readouterr().err


def test_part_of_a_log() -> None:
    log = "noise\nnnjobs: worker 0 on a\nx\nnnjobs: worker 1 on a\ny\nnnjobs: worker 0 on a\nz\n"
    assert part_of(log, 0) == "nnjobs: worker 0 on a\nx\nnnjobs: worker 0 on a\nz\n"
    assert part_of(log, 1) == "nnjobs: worker 1 on a\ny\n"
    assert part_of(log, 7) == ""
