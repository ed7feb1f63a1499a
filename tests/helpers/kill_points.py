"""A process killed before a chosen change to the disk."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nnlib.storage.fault_hook
from nnlib.config.schema import Config


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

            def step(action: str, place: str | Path) -> None:
                nonlocal seen
                if seen == kill_before:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

            nnlib.storage.fault_hook.step = step
            work()
            if count is not None:
                count.write_text(str(seen))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    except BaseException:  # Ctrl-C, or a time limit of the test run
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        raise


def changes_of(work: Callable[[], Any], where: Path) -> int:
    assert in_child(work, count=where) == 0
    return int(where.read_text())


def kill_points(total: int, request: pytest.FixtureRequest) -> list[int]:
    """All of them with --full, else a sample that reaches every part of a run."""
    if request.config.getoption("--full"):
        return list(range(total))
    return sorted({*range(0, total, max(1, total // 24)), 1, total - 1})
