"""For whom a group waits: who has come, who is missing, and where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.collective.gang_state import GangState
from jobs.collective.job_folder import JobFolder, TaskRecord
from nnlib.storage import LocalStorage


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(LocalStorage(tmp_path), "collective/0a1b2c3d")


def join(folder: JobFolder, generation: int, *workers: int) -> None:
    for worker in workers:
        incarnation = f"{generation}-{worker}"
        folder.add_task(incarnation, TaskRecord(worker, None, f"node{worker % 3}", 1))
        name = f"generation-{generation:06d}-worker-{worker:06d}.json"
        folder.files.create(name, json.dumps({"incarnation": incarnation}).encode())


def test_nobody_has_come_yet(folder: JobFolder) -> None:
    assert GangState(folder, 4).text(folder.names()) == "0 of 4 workers have come; missing: 0-3"


def test_some_have_come(folder: JobFolder) -> None:
    join(folder, 1, 0, 3)
    assert GangState(folder, 6).text(folder.names()) == "2 of 6 workers have come; missing: 1-2, 4-5"


def test_all_have_come(folder: JobFolder) -> None:
    join(folder, 1, 0, 1, 2)
    assert GangState(folder, 3).text(folder.names()) == ""


def test_after_a_loss_those_who_are_missing_are_named_with_their_machines(folder: JobFolder) -> None:
    gang = GangState(folder, 20)
    join(folder, 1, *range(20))
    join(folder, 2, 0)
    text = gang.text(folder.names())
    named = ", ".join(f"{worker} (was on node{worker % 3})" for worker in range(1, 9))
    assert text == f"1 of 20 workers have come to go on after a loss; missing: {named} and 11 more"
    join(folder, 2, *range(2, 20))
    text = gang.text(folder.names())
    assert text == "19 of 20 workers have come to go on after a loss; missing: 1 (was on node1)"
    join(folder, 2, 1)
    assert gang.text(folder.names()) == ""
