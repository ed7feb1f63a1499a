"""What tasks report to the driver through the job's folder, and which reported workers the driver takes for lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_job import small_spec

from jobs.collective.failure_detector import REJOIN_SECONDS, LossReports, LostWorker
from jobs.collective.job_folder import GangFailure, JobFolder, LossReport, TaskRecord
from nnlib.storage import LocalStorage


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(LocalStorage(tmp_path), "collective/0a1b2c3d")


def join(folder: JobFolder, generation: int, worker: int, incarnation: str) -> None:
    """A task enters a generation."""
    folder.add_task(incarnation, TaskRecord(worker, f"attempt of {incarnation}", "here", 1))
    name = f"generation-{generation:06d}-worker-{worker:06d}.json"
    folder.files.create(name, json.dumps({"incarnation": incarnation}).encode())


def test_the_records_have_the_bytes_they_always_had(folder: JobFolder) -> None:
    folder.add_task("ff", TaskRecord(2, None, "node1", 77))
    folder.report_loss(3, LossReport(4, (0, 1), "lost workers 0, 1: silent"))
    folder.report_loss(3, LossReport(4, (2,), "of the same generation: the first report counts"))
    folder.give_up(GangFailure((2, 0), (1,), 120.0))
    assert {name: folder.files.read(name) for name in folder.names()} == {
        "task-ff.json": b'{"worker": 2, "attempt": null, "host": "node1", "process": 77}\n',
        "lost-000004-by-000003.json": b'{"generation": 4, "workers": [0, 1], "why": "lost workers 0, 1: silent"}\n',
        "given-up.json": b'{"came": [0, 2], "missing": [1], "seconds": 120.0}\n',
    }
    assert folder.read_loss("lost-000004-by-000003.json") == LossReport(4, (0, 1), "lost workers 0, 1: silent")
    assert folder.is_given_up()


def test_a_worker_that_does_not_rejoin_in_time_is_lost(folder: JobFolder) -> None:
    clock = Clock()
    reports = LossReports(folder, clock)
    for worker in (0, 1):
        join(folder, 1, worker, f"first {worker}")
    folder.report_loss(0, LossReport(1, (1,), "silent"))
    assert reports.confirm(folder.names()) == []
    clock.now = REJOIN_SECONDS
    assert reports.confirm(folder.names()) == [LostWorker(1, "attempt of first 1", 1, "silent")]
    assert reports.confirm(folder.names()) == [], "once"


def test_a_worker_that_was_replaced_is_lost_and_one_that_rejoins_is_not(folder: JobFolder) -> None:
    reports = LossReports(folder, Clock())
    for worker in (0, 1, 2):
        join(folder, 1, worker, f"first {worker}")
    folder.report_loss(0, LossReport(1, (1, 2), "silent"))
    join(folder, 2, 1, "second 1")
    join(folder, 2, 2, "first 2")
    assert reports.confirm(folder.names()) == [LostWorker(1, "attempt of first 1", 1, "silent")]


def test_a_lost_worker_whose_task_is_unknown_has_no_attempt(folder: JobFolder) -> None:
    clock = Clock()
    reports = LossReports(folder, clock)
    folder.report_loss(0, LossReport(1, (1,), "silent"))
    reports.confirm(folder.names())
    clock.now = REJOIN_SECONDS
    assert reports.confirm(folder.names()) == [LostWorker(1, None, 1, "silent")]


def test_a_group_that_loses_a_worker_for_good_names_its_host_and_blames_no_slots(
    folder: JobFolder, tmp_path: Path
) -> None:
    spec = small_spec(tmp_path)
    folder.give_up(GangFailure((0, 1, 2), (3,), 120.0))
    never_met = folder.gang_error(spec)
    assert never_met.message == "only 3 of 4 workers came to run at once within 120 s (missing: 3)"
    for worker in range(4):
        join(folder, 1, worker, f"first {worker}")
    join(folder, 2, 0, "first 0")
    lost = folder.gang_error(spec)
    assert lost.message == "worker 3 on here: lost, and not replaced within 120 s (3 of 4 workers are left)"
    assert "slots" not in str(lost.hint) and "yarn node -list" in str(lost.hint)
    assert lost.where["slots"] == never_met.where["slots"] == 3  # with which rounds mode may go on
