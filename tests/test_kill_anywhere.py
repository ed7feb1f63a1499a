"""A driver killed at any change to the disk, and resumed, ends in the files of a run that was never disturbed.

`nnlib.storage.changes.step` is called before every single change (creating, writing through, renaming, linking,
deleting, syncing a directory): the test counts the changes of a run, then kills the process (SIGKILL) before each of
them. What is "after" one change is "before" the next.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import deterministic_files
from shards import write_dataset

import nnlib.storage.changes
from jobs import driver
from nnlib.config.schema import Config
from nnlib.data.dataset import MANIFEST, Dataset
from nnlib.data.importing import from_arrays
from nnlib.errors import DataError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 120)
    x = (rng.normal(size=(3, 4))[y] + rng.normal(size=(120, 4))).astype(np.float32)
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, x, y, shards=2, classes=3)
    return str(where)


def config(dataset: str, run: Path, mode: str = "rounds") -> Config:
    """Small, but with all that a round can store: outer state, averaged optimizer state, a best round, pruning."""
    return Config.model_validate(
        {
            "data": {"path": dataset},
            "run_dir": str(run),
            "workers": 2,
            "model": {"hidden": [3]},
            "split": {"seeds": [0, 1], "validation": 0.2},
            "train": {"epochs": 4, "epochs_per_round": 1, "optimizer_state": "average", "keep": "best"},
            "sync": {"mode": mode, "outer": {"kind": "nesterov", "lr": 0.8, "momentum": 0.5}},
            "checkpoint": {"keep": 1, "every": 3},
        }
    )


def in_child(work: Callable[[], Any], kill_before: int | None = None, count: Path | None = None) -> int:
    """Run ``work`` in a forked process, killed before the given change to the disk; its exit code (-9 if killed)."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            seen = 0

            def step(action: str, path: Path) -> None:
                nonlocal seen
                if seen == kill_before:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

            nnlib.storage.changes.step = step
            work()
            if count is not None:
                count.write_text(str(seen))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def changes_of(work: Callable[[], Any], where: Path) -> int:
    assert in_child(work, count=where) == 0
    return int(where.read_text())


def kill_points(total: int, request: pytest.FixtureRequest) -> list[int]:
    """All of them with --full, else a sample that reaches every part of a run."""
    if request.config.getoption("--full"):
        return list(range(total))
    return sorted({*range(0, total, max(1, total // 24)), 1, total - 1})


@pytest.mark.parametrize("mode", ["rounds", "collective"])
def test_killed_before_any_change_and_resumed(
    dataset: str, tmp_path: Path, request: pytest.FixtureRequest, mode: str
) -> None:
    whole = tmp_path / "whole"
    total = changes_of(lambda: driver.train(config(dataset, whole, mode), resume=True), tmp_path / "count")
    assert total > 60
    expected = deterministic_files(whole)
    for point in kill_points(total, request):
        run = tmp_path / "run"
        code = in_child(lambda run=run: driver.train(config(dataset, run, mode), resume=True), point)
        assert code in (-signal.SIGKILL, 0), point  # journals are written by the clock: the last points may not be met
        assert in_child(lambda run=run: driver.train(config(dataset, run, mode), resume=True)) == 0, point
        assert deterministic_files(run) == expected, point
        shutil.rmtree(run)


def test_killed_again_and_again(dataset: str, tmp_path: Path) -> None:
    """A run that is killed a few changes after every resume still arrives, at the same bits."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    driver.train(config(dataset, whole))
    for _ in range(60):
        code = in_child(lambda: driver.train(config(dataset, run), resume=True), 90)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0
    assert deterministic_files(run) == deterministic_files(whole)


def test_an_import_killed_anywhere_leaves_no_dataset_or_a_whole_one(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(200, 3)).astype(np.float32), rng.integers(0, 2, 200)
    whole = tmp_path / "whole"
    total = changes_of(lambda: from_arrays(x, y, str(whole), shards=3), tmp_path / "count")
    expected = {path.name: path.read_bytes() for path in whole.iterdir()}
    for point in kill_points(total, request):
        output = tmp_path / "output"
        assert in_child(lambda output=output: from_arrays(x, y, str(output), shards=3), point) == -signal.SIGKILL
        if not (output / MANIFEST).exists():
            with pytest.raises(DataError):
                Dataset.open(str(output))
            assert in_child(lambda output=output: from_arrays(x, y, str(output), shards=3, overwrite=True)) == 0
        found = {path.name: path.read_bytes() for path in output.iterdir() if not path.name.startswith(".")}
        assert found == expected, point
        shutil.rmtree(output)
