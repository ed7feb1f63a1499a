"""Finds what a worker of a run has written, wherever its runner has left it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nnlib.config.runners import runner_named
from nnlib.core.errors import UsageError
from nnlib.core.named_object import load_named
from nnlib.run.directory import RunDirectory
from nnlib.run.run_state import RunState


@dataclass(frozen=True)
class LogRequest:
    """Whose log is wanted: that of a ``worker`` of a run, in its newest job or in that of a ``round`` (from 1)."""

    run: RunDirectory
    state: RunState
    worker: int
    round: int | None = None

    @property
    def job(self) -> str | None:
        """The name of the job that trains the round; None for the newest one, and in collective mode for the only
        one."""
        return None if self.round is None or self.state.mode == "collective" else f"train {self.round - 1}"


@dataclass(frozen=True)
class WorkerLog:
    """What a worker has written, and ``where`` that was found, for people."""

    text: str
    where: str


FindLog = Callable[[LogRequest], WorkerLog]
"""What a runner's line of `nnlib.config.runners.RUNNERS` names under ``logs``. Raises `JobError` where the log is gone,
or out of reach, and says why."""


def find_worker_log(request: LogRequest) -> WorkerLog:
    """Return a worker's log. Raises as `FindLog` does, and `UsageError` for a worker or round that the run has not."""
    state = request.state
    if not 0 <= request.worker < state.worker_count:
        raise UsageError(f"the run has workers 0 to {state.worker_count - 1}, no worker {request.worker}")
    if request.round is not None and not 1 <= request.round <= state.round + 1:
        raise UsageError(f"the run has done rounds 1 to {state.round}; round {request.round} has not begun")
    find: FindLog = load_named(runner_named(state.runner).logs)
    return find(request)


def refuse_log_of_driver(request: LogRequest) -> WorkerLog:
    """Raise `UsageError`: a runner whose tasks run in the driver's process has no logs of workers."""
    raise UsageError(
        f"the runner {request.state.runner} runs all workers in the process of the driver: what they write is in that "
        "command's output",
        hint="nnjobs logs RUN, without --worker, shows the run's log",
    )
