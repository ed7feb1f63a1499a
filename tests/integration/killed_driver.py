"""``nnjobs`` that kills itself (SIGKILL) at a point of the second round, as a driver that is killed from outside.

python killed_driver.py POINT train CONFIG ...
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUND = 2


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_submission() -> None:
    """When the first round is committed, and what the job of the second needs is written."""
    from jobs.runners.hadoop.runner import HadoopRunner

    submit, jobs = HadoopRunner._run, []

    def counted(self: HadoopRunner) -> None:
        jobs.append(self)
        if len(jobs) == ROUND:
            die()
        submit(self)

    HadoopRunner._run = counted  # type: ignore[method-assign]


def before_commit() -> None:
    """When the job's lines are read, and nothing is written."""
    from nnlib.run.round_store import RoundStore

    require = RoundStore.require

    def counted(self: RoundStore, round_: int) -> None:
        if round_ == ROUND - 1:
            die()
        require(self, round_)

    RoundStore.require = counted  # type: ignore[method-assign]


def in_commit() -> None:
    """When some files of the round have their names, and the manifest has not."""
    from nnlib.storage import fault_hook as changes

    def step(action: str, place: str | Path) -> None:
        if action == "rename" and str(place).endswith(f"rounds/{ROUND:06d}/trials.json"):
            die()

    changes.step = step


def after_commit() -> None:
    """When the round is there, and nobody was told."""
    from nnlib.run.round_store import RoundStore

    commit = RoundStore.commit

    def last(self: RoundStore, checkpoint: Any, before: Any = None) -> None:
        commit(self, checkpoint, before)
        if checkpoint.round == ROUND:
            die()

    RoundStore.commit = last  # type: ignore[method-assign]


POINTS: dict[str, Callable[[], None]] = {
    "before submission": before_submission,
    "before commit": before_commit,
    "in commit": in_commit,
    "after commit": after_commit,
}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the nnjobs that is tested, not one that is installed
    from jobs.__main__ import main

    POINTS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
