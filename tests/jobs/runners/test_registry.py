"""Runners: reducers by key, any path, nothing left behind however a run ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from driver_experiment import CLASSES, blobs, config
from processes import in_session, started, wait_until_gone
from product import ROOT
from runs import deterministic_files
from shards import write_dataset

from jobs.driver import driver
from jobs.runners.local import session as local_session
from jobs.runners.local.attempt import Task
from jobs.runners.local.fork_server import TaskServer
from jobs.runners.local.task_pool import TaskPool
from nnlib.core.errors import JobError, StorageError
from nnlib.core.events import Note

AWKWARD = "a b [x]* ?# 'q' \"d\" é"
LOCAL = {"runtime__runner": "local"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("data") / AWKWARD
    write_dataset(where, *blobs(400), shards=8, row_group_rows=16, classes=CLASSES)
    return str(where)


@pytest.fixture(params=["plain", AWKWARD])
def temporary(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary files; a test must leave it empty."""
    folder = tmp_path / "temporary" / request.param
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_paths_may_hold_anything(dataset: str, tmp_path: Path, temporary: Path, runner: str) -> None:
    here = config(dataset, tmp_path / f"run {AWKWARD}", train__epochs=2, runtime__runner=runner)
    driver.train(here)
    driver.train(config(dataset, tmp_path / "plain", train__epochs=2))
    assert deterministic_files(tmp_path / f"run {AWKWARD}") == deterministic_files(tmp_path / "plain")


@pytest.mark.parametrize("reducers", [1, 2, 3, 8])
def test_every_key_goes_to_one_of_the_reducers(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reducers: int
) -> None:
    inputs: dict[str, list[list[bytes]]] = {}  # of a job's reduce tasks

    class RecordingPool(TaskPool):
        def run(self, task: Task) -> None:
            if task.kind == "reducer":
                inputs.setdefault(task.job, []).append(task.input.read_bytes().splitlines())
            super().run(task)

    monkeypatch.setattr(local_session, "TaskPool", RecordingPool)
    changes: dict[str, Any] = {"train__epochs": 2, "model__hidden": [300, 300], "split__seeds": [0, 1, 2], **LOCAL}
    driver.train(config(dataset, tmp_path / "run", reducers=reducers, **changes))
    assert list(inputs) == ["train 0", "score 1"]
    for job in inputs.values():
        buckets = [{zlib.crc32(line.partition(b"\t")[0]) % reducers for line in lines} for lines in job]
        assert all(len(bucket) == 1 for bucket in buckets)  # what belongs to one reducer, and nothing else
        assert len(set().union(*buckets)) == len(job)  # and all of it
        for lines in job:
            assert lines == sorted(lines)  # values of a key come in worker order


def test_a_run_that_fails_leaves_nothing_and_names_the_worker(
    dataset: str, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = TaskServer.start

    def failing(self: Any, arguments: list[str], **options: Any) -> Any:
        if "/mapper/00002/" in options["stdin"].name:
            arguments = [*arguments, "--no-such-option"]
        return start(self, arguments, **options)

    monkeypatch.setattr(TaskServer, "start", failing)
    events: list[Any] = []
    with pytest.raises(JobError, match="unrecognized arguments: --no-such-option") as caught:
        driver.train(config(dataset, tmp_path / "run", runtime__retries=2, **LOCAL), listen=events.append)
    assert caught.value.where == {"worker": 2, "round": 0, "shards": "part-00002.parquet, part-00006.parquet"}
    assert "attempt 3 of 3 ended with code 2" in caught.value.message
    assert [event.level for event in events if isinstance(event, Note)] == ["warning"] * 2
    recorded = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [fact["task"] for fact in recorded if fact["event"] == "attempt"] == ["worker 2"] * 3


def test_a_full_folder_for_temporary_files_is_explained(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    with pytest.raises(StorageError, match="cannot make a temporary folder"):
        driver.train(config(dataset, tmp_path / "run", **LOCAL))


def test_elsewhere_tasks_are_started_without_the_server(
    dataset: str, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_session, "process_starter", lambda *_: subprocess.Popen)
    driver.train(config(dataset, tmp_path / "started", train__epochs=2, workers=2, **LOCAL))
    driver.train(config(dataset, tmp_path / "inline", train__epochs=2, workers=2))
    assert deterministic_files(tmp_path / "started") == deterministic_files(tmp_path / "inline")


def test_cores_are_honoured(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running: set[int] = set()
    most: list[int] = []

    class CountingPool(TaskPool):
        def _outcome(self, process: Any, *rest: Any) -> str | None:
            running.add(id(process))
            most.append(len(running))
            try:
                return super()._outcome(process, *rest)
            finally:
                running.discard(id(process))

    monkeypatch.setattr(local_session, "TaskPool", CountingPool)
    driver.train(config(dataset, tmp_path / "run", train__epochs=2, runtime__cores=3, workers=8, **LOCAL))
    assert 1 <= max(most) <= 3


def command(dataset: str, run: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    """A long run as a process of its own, with its temporary files in ``folder``."""
    experiment = config(dataset, run, train__epochs=4000, train__epochs_per_round=2, **LOCAL)
    path = run.parent / "long.yaml"
    path.write_text(yaml.safe_dump(experiment.model_dump(mode="json", exclude_unset=True)))
    return [sys.executable, "-m", "jobs", "train", str(path)], {**os.environ, "TMPDIR": str(folder)}


@contextlib.contextmanager
def begun(dataset: str, run: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, after its first round; it leads a session, as a command in a terminal of its own."""
    arguments, environment = command(dataset, run, folder)
    with started(arguments, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        assert any(line.startswith("round ") for line in process.stderr), "the run ended before its first round"
        yield process


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_ends_everything_and_leaves_whole_rounds(dataset: str, tmp_path: Path, temporary: Path) -> None:
    with begun(dataset, tmp_path / "run", temporary) as process:
        os.killpg(process.pid, signal.SIGINT)  # a terminal signals all of them
        _, text = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "nnjobs train --resume --run-dir" in text
        assert "trying again" not in text and "Traceback" not in text
        assert in_session(process.pid) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_process_outlives_a_driver_that_is_killed(dataset: str, tmp_path: Path) -> None:
    with begun(dataset, tmp_path / "run", tmp_path) as process:
        others = [number for number in in_session(process.pid) if number != process.pid]
        assert others
        process.kill()
        process.communicate(timeout=60)
        assert all(wait_until_gone(number) for number in others)
        assert in_session(process.pid) == []
