"""A driver on the cluster: what is refused before, what the job is asked for, and what its task does."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver_experiment import blobs, config
from played_hadoop import APPLICATION, Yarn, after, configured, hadoop_home, play, said, yarn
from runs import deterministic_files
from shards import write_dataset

from jobs.__main__ import main
from jobs.driver import driver
from jobs.driver.detached import _readable, driver_memory
from jobs.driver.detached_job import NO_CLIENT, DetachedJob, DriverPlan, drive
from jobs.runners.hadoop import task_environment
from jobs.runners.hadoop.background import submit_in_background
from jobs.runners.hadoop.known_failures import KNOWN
from jobs.runners.hadoop.task_environment import Environment
from jobs.runners.request import JobRequest, TaskDemand
from nnlib.config.render import to_yaml
from nnlib.core.errors import DataError, NnjobsError, UsageError
from nnlib.core.interrupts import WANTED
from nnlib.data.dataset import Dataset
from nnlib.run.detached_driver import (
    DetachedDriver,
    read_detached_driver,
    read_driver_error,
    write_detached_driver,
    write_driver_error,
)
from nnlib.run.run_state import run_state
from nnlib.storage import storage

__all__ = ["hadoop_home", "yarn"]

RUN = "hdfs://m0:8020/runs/a"
HADOOP: dict[str, Any] = {"runtime__runner": "hadoop"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, *blobs(90), shards=3, classes=3)
    return str(where)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The task changes its process: handlers of signals, the environment of its jobs."""
    handlers = {number: signal.getsignal(number) for number in WANTED}
    yield
    task_environment._inherited = None
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("changes", "start", "words"),
    [
        ({"runtime__runner": "local"}, None, "a driver is detached on a cluster only: -r hadoop"),
        ({"run_dir": "runs/a"}, None, "the directory of a detached run must be on the cluster"),
        ({"run_dir": "file:///runs/a"}, None, "the directory of a detached run must be on the cluster"),
        ({"data__path": "datasets/a"}, None, "the nodes of a cluster do not see a dataset on this machine"),
        ({}, "runs/b@3", "a detached driver cannot read a run on this machine"),
        ({"tracking__mlflow": "mlruns"}, None, "a detached driver cannot write into a folder of this machine"),
    ],
)
def test_what_only_this_machine_can_reach_is_refused(changes: dict[str, Any], start: str | None, words: str) -> None:
    asked = config("hdfs://m0:8020/data", RUN, **(HADOOP | changes))
    with pytest.raises(UsageError, match=words):
        _readable(asked, start)


def test_kerberos_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"hadoop.security.authentication": "kerberos"}
    monkeypatch.setattr("jobs.driver.detached.properties", lambda: settings)
    with pytest.raises(UsageError, match="--detach cannot be used on a cluster with Kerberos"):
        _readable(config("hdfs://m0:8020/data", RUN, **HADOOP), None)


def test_the_memory_of_a_driver_follows_from_its_models(dataset: str) -> None:
    small = driver_memory(config(dataset, RUN), Dataset.open(dataset))
    large = driver_memory(config(dataset, RUN, model__hidden=[4096, 4096]), Dataset.open(dataset))
    parameters = 6 * 4096 + 4096 + 4096 * 4096 + 4096 + 3 * 4096 + 3
    assert 768 <= small <= 769
    assert large - 768 == -(-10 * 4 * parameters // (1 << 20))
    swept = config(dataset, RUN, model__hidden=[4096, 4096], split__seeds=[0, 1], sweep={"train.lr": [0.1, 0.2]})
    assert abs(driver_memory(swept, Dataset.open(dataset)) - 768 - 4 * (large - 768)) <= 4
    assert driver_memory(config(dataset, RUN, runtime__hadoop__driver_memory_mb=77), Dataset.open(dataset)) == 77


def test_the_job_of_a_driver(dataset: str, tmp_path: Path, hadoop_home: Path) -> None:
    """One map task in a container of its own, whose tokens outlive it; nothing about the run is in the arguments but
    addresses."""
    play(hadoop_home, "hadoop", f"echo 'impl.YarnClientImpl: Submitted application {APPLICATION}' >&2")
    home = storage(str(tmp_path / "home"))
    runtime = config(dataset, RUN, **HADOOP).runtime
    request = JobRequest(
        job=DetachedJob,
        phase="drive",
        name="the driver",
        experiment="e",
        label="driver",
        lines=["the plan"],
        files={"--config": "hdfs://m0:8020/runs/a/driver/1/config.yaml"},
        demand=TaskDemand(memory_mb=700),
    )
    environment = Environment(("nnjobs-env/bin/python",), ("hdfs://m0:8020/env.tar.gz#nnjobs-env",), {"A": "b"})
    submission = submit_in_background(runtime, request, home, environment, lambda note: None, run=RUN)
    assert submission.application == APPLICATION
    arguments = said(hadoop_home, "hadoop")
    properties = dict(each.split("=", 1) for each in after(arguments, "-D"))
    assert "-background" in arguments
    assert properties["mapreduce.job.complete.cancel.delegation.tokens"] == "false"
    assert properties["mapreduce.map.speculative"] == properties["mapreduce.job.ubertask.enable"] == "false"
    assert properties["mapreduce.map.maxattempts"] == "4" and properties["mapreduce.job.reduces"] == "0"
    assert int(properties["mapreduce.map.memory.mb"]) >= 700 + 192
    assert properties["mapreduce.job.tags"].startswith("nnjobs-driver-")
    assert home.read("plan") == b"the plan\n"
    assert "the plan" not in " ".join(arguments)


def plan(run: Path, home: Path, **changes: Any) -> DriverPlan:
    values = {
        "start_from": None,
        "python": ("python3",),
        "archives": (),
        "variables": {"A": "b"},
        "files": (),
        "mrjob_conf": None,
    }
    return DriverPlan(run=str(run), home=str(home), **(values | changes))


def test_a_plan_is_a_line(tmp_path: Path) -> None:
    made = plan(tmp_path, tmp_path, mrjob_conf=("a b/c.conf", "x: 1\ny: 2\n"), start_from="hdfs://a/b@3")
    assert "\n" not in made.to_line()
    assert DriverPlan.from_line(made.to_line()) == made


def test_the_task_trains_the_run_and_a_second_attempt_goes_on(
    dataset: str, tmp_path: Path, hadoop_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home, run = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    settings = config(dataset, None, workers=2, train__epochs=4)
    (home / "config.yaml").write_text(to_yaml(settings))
    made = plan(run, home, mrjob_conf=("conf/mrjob.conf", "runners: {}\n"))
    drive(made, home / "config.yaml")
    assert run_state(str(run)).state == "finished"
    assert (tmp_path / "conf" / "mrjob.conf").read_text() == "runners: {}\n"
    assert task_environment._inherited == Environment(("python3",), (), {"A": "b"})
    drive(made, home / "config.yaml")  # finds it finished
    assert read_driver_error(storage(str(home))) is None
    driver.train(config(dataset, tmp_path / "whole", workers=2, train__epochs=4))
    assert deterministic_files(run) == deterministic_files(tmp_path / "whole")


def test_an_error_is_left_for_whoever_waits_and_the_task_succeeds(
    dataset: str, tmp_path: Path, hadoop_home: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.yaml").write_text(to_yaml(config(str(tmp_path / "none"), None)))
    drive(plan(tmp_path / "run", home), home / "config.yaml")
    error = read_driver_error(storage(str(home)))
    assert isinstance(error, NnjobsError) and error.exit_code in (2, 3)


def test_a_node_without_hadoop_ends_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HADOOP_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=NO_CLIENT):
        drive(plan(tmp_path, tmp_path), tmp_path / "config.yaml")
    assert [known.lasting for known in KNOWN if known.text.search(NO_CLIENT)] == [True]


def test_a_driver_that_is_dead_or_has_not_begun_is_ended_with_its_job(
    dataset: str,
    tmp_path: Path,
    hadoop_home: Path,
    yarn: tuple[str, type[Yarn]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """YARN would start another in its place."""
    host, server = yarn
    configured(hadoop_home, {"yarn.resourcemanager.webapp.address": host})
    page = f"/ws/v1/cluster/apps/{APPLICATION}"
    run = tmp_path / "run"
    assert main(["cancel", str(run)]) == 2
    write_detached_driver(storage(str(run)), DetachedDriver(APPLICATION, 5.0))
    server.answers = {page: {"app": {"state": "ACCEPTED"}}, f"{page}/state": {"state": "KILLED"}}
    assert main(["cancel", str(run)]) == 0
    assert f"ended {APPLICATION}, which would have driven this run" in capsys.readouterr().err
    assert [path.partition("?")[0] for method, path, _ in server.heard if method == "PUT"] == [f"{page}/state"]

    driver.train(config(dataset, run, workers=2, train__epochs=2))
    (run / "final" / "metrics.json").unlink()
    facts = {"host": "elsewhere", "process": 7, "started": None, "since": 5.0, "until": 6.0, "released": False}
    (run / "lock" / "000009.json").write_text(json.dumps(facts))
    server.answers = {page: [{"app": {"state": "RUNNING"}}, {"app": {"state": "FINISHED"}}]}
    assert main(["status", str(run), "--follow"]) == 4
    assert "stopped: its driver (process 7 on elsewhere) is gone" in capsys.readouterr().err
    server.answers = {page: {"app": {"state": "RUNNING"}}, f"{page}/state": {"state": "KILLED"}}
    assert main(["cancel", str(run)]) == 0
    assert f"ended {APPLICATION}" in capsys.readouterr().err
    server.answers = {page: {"app": {"state": "FINISHED"}}}
    assert main(["cancel", str(run)]) == 0
    assert "no driver works on this run (stopped: its driver" in capsys.readouterr().err


def test_records(tmp_path: Path) -> None:
    run = storage(str(tmp_path))
    assert read_detached_driver(run) is None
    write_detached_driver(run, DetachedDriver(APPLICATION, 5.0))
    assert read_detached_driver(run) == DetachedDriver(APPLICATION, 5.0)
    write_driver_error(run, DataError("bad row", file="a", row=3))
    error = read_driver_error(run)
    assert isinstance(error, DataError) and str(error) == "file a, row 3: bad row"
    (tmp_path / "error.json").write_text("[")
    (tmp_path / "driver" / "application.json").write_text(json.dumps([]))
    assert read_driver_error(run) is None and read_detached_driver(run) is None
