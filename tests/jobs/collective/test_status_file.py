"""The status file is read as it was written, and anything else in its place is ignored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.collective.status_file import (
    STATUS,
    CollectiveStatus,
    RoundReport,
    read_status,
    write_status,
)
from nnlib.core.events import RoundDone, TrialStopped, WorkerProgress
from nnlib.run.run_events import RoundEvent
from nnlib.storage import LocalStorage

DONE = RoundDone(7, None, 14, 20, 1, 0.5, None, None, ("r2", 0.9), None, 0.01, 0.25)
STOPPED = TrialStopped(1, 0, 6, "stopped early: no better for 3 rounds")
COST = RoundEvent(
    7, 0.25, {"train": 0.1, "score": 0.05}, exchange_seconds=0.125, shuffled_bytes=4096, uploaded_bytes=1024
)


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = LocalStorage(tmp_path)
    assert read_status(run) is None
    workers = (WorkerProgress(0, 0.5, 1000.0, 0.125), WorkerProgress(1, None, None, 0.0))
    status = CollectiveStatus(2, 7, 0.25, 6, (RoundReport(DONE, (STOPPED,), COST),), workers)
    write_status(run, status)
    assert read_status(run) == status
    written = json.loads((tmp_path / STATUS).read_bytes())
    assert list(written) == ["format_version", "generation", "round", "seconds", "committed", "rounds", "workers"]
    assert written["rounds"][0]["journal"] == {
        "round": 7,
        "seconds": 0.25,
        "exchange_seconds": 0.125,
        "worker_seconds": {"train": 0.1, "score": 0.05},
        "shuffled_bytes": 4096,
        "uploaded_bytes": 1024,
    }


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format_version": 0}', b'{"round": 1}'])
def test_anything_else_is_no_status(tmp_path: Path, data: bytes) -> None:
    run = LocalStorage(tmp_path)
    run.write(STATUS, data)
    assert read_status(run) is None
