"""How a run is: running, ended or dead, whatever its status file says; and requests to end it."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import pytest
from driver_experiment import blobs, config
from shards import write_dataset

from jobs.driver import driver
from nnlib.core.errors import UsageError
from nnlib.core.events import WorkerProgress
from nnlib.core.waiting import WaitReport
from nnlib.run.cancel_request import CancelRequest, ask_to_end, forget_requests, read_request
from nnlib.run.driver_status import (
    FAILED,
    INTERRUPTED,
    MOST_WORKERS,
    DriverStatus,
    read_driver_status,
    write_driver_status,
)
from nnlib.run.lease import RunLock, driver_of
from nnlib.run.run_state import RunState, run_state
from nnlib.storage import storage


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, *blobs(90), shards=3, classes=3)
    return str(where)


@pytest.fixture
def finished(dataset: str, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    driver.train(config(dataset, run, workers=2, train__epochs=4))
    return run


def unfinished(run: Path) -> Path:
    """A run without its end."""
    for name in ("metrics.json", "model.safetensors"):
        (run / "final" / name).unlink()
    return run


def a_status(run: Path, **changes: object) -> DriverStatus:
    holder = driver_of(storage(str(run)))
    assert holder is not None
    now = time.time()
    status = DriverStatus(holder.name, holder.host, holder.process, now, now, "inline", "rounds")
    return replace(status, **changes)  # type: ignore[arg-type]


def foreign_lease(run: Path, until: float) -> None:
    """The lease of a driver on another machine."""
    facts = {"host": "elsewhere", "process": 7, "started": None, "since": 5.0, "until": until, "released": False}
    (run / "lock" / "000009.json").write_text(json.dumps(facts))


def test_a_finished_run(finished: Path) -> None:
    state = run_state(str(finished))
    assert (state.state, state.exit_code, state.is_over) == ("finished", 0, True)
    assert (state.round, state.rounds, state.epoch, state.epochs, state.committed) == (2, 2, 4, 4, 2)
    assert (state.host, state.process) == (platform.node(), os.getpid())
    assert json.loads(json.dumps(state.to_json()))["state"] == "finished"


def test_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run here"):
        run_state(str(tmp_path))


def test_a_driver_that_has_only_the_lock(tmp_path: Path) -> None:
    with RunLock(storage(str(tmp_path))):
        state = run_state(str(tmp_path))
    assert (state.state, state.process, state.is_over) == ("starting", os.getpid(), False)
    with pytest.raises(UsageError):
        run_state(str(tmp_path))


def test_a_running_run_is_as_far_as_its_driver_says(finished: Path) -> None:
    run = storage(str(unfinished(finished)))
    with RunLock(run):
        assert run_state(str(finished)).round == 2  # what is committed, without a status
        worker = WorkerProgress(1, 0.5, 1000.0, 0.25, "w1")
        told = a_status(
            finished, round=5, rounds=9, epoch=10, epochs=18, workers=(worker,), application="application_1"
        )
        write_driver_status(run, replace(told, waits=(WaitReport("the queue", 7.0),), seconds_left=12.5))
        state = run_state(str(finished))
    assert (state.state, state.round, state.rounds, state.epoch, state.epochs) == ("running", 5, 9, 10, 18)
    assert (state.committed, state.seconds_left, state.application) == (2, 12.5, "application_1")
    assert state.workers == (worker,) and state.waits == (WaitReport("the queue", 7.0),)
    assert run_state(str(finished)).state == INTERRUPTED  # the lock was released: it ended, and said nothing


@pytest.mark.parametrize(("end", "code"), [(INTERRUPTED, 130), (FAILED, 4)])
def test_how_a_driver_ended(finished: Path, end: str, code: int) -> None:
    run = storage(str(unfinished(finished)))
    write_driver_status(run, a_status(finished, state=end, reason="because", exit_code=code))
    state = run_state(str(finished))
    assert (state.state, state.reason, state.exit_code) == (end, "because", code)


def test_a_dead_driver_elsewhere_is_known_by_its_lease(finished: Path) -> None:
    unfinished(finished)
    foreign_lease(finished, time.time() + 60.0)
    assert run_state(str(finished)).state == "running"
    foreign_lease(finished, time.time() - 1.0)
    state = run_state(str(finished))
    assert (state.state, state.exit_code) == ("dead", 4)
    assert state.reason == "its driver (process 7 on elsewhere) is gone"


def test_a_status_of_an_earlier_driver_does_not_count(finished: Path) -> None:
    run = storage(str(unfinished(finished)))
    write_driver_status(run, a_status(finished, state=FAILED, reason="long ago", exit_code=4))
    with RunLock(run):
        assert run_state(str(finished)).state == "running"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 99}', '{"format_version": 1, "workers": 3}'])
def test_a_file_that_is_no_status_tells_nothing(finished: Path, text: str) -> None:
    (finished / "status.json").write_text(text)
    assert read_driver_status(storage(str(finished))) is None
    assert run_state(str(finished)).state == "finished"


def test_a_status_is_bounded(finished: Path) -> None:
    workers = tuple(WorkerProgress(number, 0.5, float(number % 1000), 0.25, "node") for number in range(10_000))
    waits = tuple(WaitReport("x" * 10_000, 1.0) for _ in range(100))
    run = storage(str(finished))
    write_driver_status(run, a_status(finished, workers=workers, worker_count=10_000, waits=waits, reason="y" * 9999))
    assert (finished / "status.json").stat().st_size < 64_000
    status = read_driver_status(run)
    assert status is not None and len(status.workers) == MOST_WORKERS and status.worker_count == 10_000
    assert max(worker.examples_per_second or 0.0 for worker in status.workers) < 26.0  # the slowest: 0 to 25, ten each


def test_no_status_is_written_where_the_run_was_moved_away(finished: Path, tmp_path: Path) -> None:
    status = a_status(finished)
    finished.rename(tmp_path / "moved")
    write_driver_status(storage(str(finished)), status)
    assert not finished.exists()


def test_the_first_request_counts_and_is_for_one_driver(tmp_path: Path) -> None:
    run = storage(str(tmp_path))
    first = CancelRequest("me", "here", 5.0)
    assert ask_to_end(run, "000003.json", first)
    assert not ask_to_end(run, "000003.json", CancelRequest("you", "there", 6.0))
    assert read_request(run, "000003.json") == first
    assert read_request(run, "000004.json") is None
    forget_requests(run, "000004.json")
    assert read_request(run, "000003.json") is None


def test_a_damaged_request_still_asks(tmp_path: Path) -> None:
    (tmp_path / "cancel").mkdir()
    (tmp_path / "cancel" / "000000.json").write_text("{")
    request = read_request(storage(str(tmp_path)), "000000.json")
    assert request is not None and request.user == "somebody"


def test_states_that_are_over() -> None:
    over = {state: RunState("x", state).is_over for state in ("starting", "running", "finished", "failed", "dead")}
    assert over == {"starting": False, "running": False, "finished": True, "failed": True, "dead": True}
