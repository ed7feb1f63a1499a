"""How a run is, as anyone sees it who reaches its directory: its driver need not run on this machine, or at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nnlib.core.errors import UsageError
from nnlib.core.events import WorkerProgress
from nnlib.core.waiting import WaitReport
from nnlib.run.commit_log import CommitLog
from nnlib.run.directory import RunDirectory
from nnlib.run.driver_status import FAILED, FINISHED, INTERRUPTED, RUNNING, DriverStatus, read_driver_status
from nnlib.run.lease import driver_of
from nnlib.run.manifest import ROUNDS
from nnlib.run.round_length import round_count
from nnlib.storage.lease import Holder

STARTING = "starting"
"""A driver has the directory, but there is no run in it yet."""
DEAD = "dead"
"""The driver is gone and has not said why: it was killed, or its machine was."""


@dataclass(frozen=True)
class RunState:
    """How a run is.

    ``state`` is ``starting``, ``running``, ``finished``, ``interrupted``, ``failed`` or ``dead``; ``reason`` says why
    it ended, and ``exit_code`` is the one that its command ended with, or that this end stands for. ``host``,
    ``process`` and ``since`` (seconds since 1970) are the driver's, or the last one's of a run that ended; ``lease`` is
    the file of its lease; ``heard`` is when it wrote its status last. The other fields are those of
    `nnlib.run.driver_status.DriverStatus`; what only a running driver does is empty for a run that ended.
    """

    run_dir: str
    state: str
    reason: str | None = None
    exit_code: int | None = None
    runner: str = ""
    mode: str = ""
    round: int = 0
    rounds: int | None = None
    epoch: int = 0
    epochs: int = 0
    committed: int = 0
    committed_time: float | None = None
    seconds_left: float | None = None
    host: str | None = None
    process: int | None = None
    since: float | None = None
    heard: float | None = None
    lease: str | None = None
    phase: str | None = None
    job: str | None = None
    application: str | None = None
    task_folder: str | None = None
    worker_count: int = 0
    workers: tuple[WorkerProgress, ...] = ()
    waits: tuple[WaitReport, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether no driver works on the run."""
        return self.state not in (STARTING, RUNNING)

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON-able data."""
        waits = [{"what": wait.what, "seconds": wait.seconds} for wait in self.waits]
        workers = [{name: _finite(value) for name, value in asdict(worker).items()} for worker in self.workers]
        return {**asdict(self), "workers": workers, "waits": waits}


def run_state(address: str) -> RunState:
    """Return how the run at an address is.

    Raises `UsageError` if there is none, `MismatchError` where its files are damaged, `StorageError` where they cannot
    be read.
    """
    run = RunDirectory(address)
    driver = driver_of(run.storage)
    if not run.exists():
        if driver is None or not driver.is_alive:
            raise UsageError("there is no run here (no spec.json)", run=run.address)
        return RunState(run.address, STARTING, **_of_driver(driver))
    spec = run.spec()
    written = read_driver_status(run.storage)
    status = written if written is not None and driver is not None and written.lease == driver.name else None
    newest, epoch = _newest(run)
    final = run.final()
    facts: dict[str, Any] = {
        "runner": spec.config.runtime.runner,
        "mode": spec.config.sync.mode,
        "rounds": round_count(spec.config),
        "epochs": spec.config.train.epochs,
        "round": newest,
        "epoch": epoch,
        "committed": newest,
        "committed_time": status.committed_time if status is not None and status.committed == newest else None,
        "worker_count": spec.config.workers,
        **({} if driver is None else _of_driver(driver)),
    }
    if status is not None:
        facts["heard"] = status.time
    if driver is not None and driver.is_alive:
        return RunState(run.address, RUNNING, **(facts if status is None else {**facts, **_at_work(status, newest)}))
    if final is not None:
        diverged = [trial.trial for trial in final.trials if trial.status == "diverged"]
        reason = f"trial {', '.join(map(str, diverged))} diverged" if diverged else None
        return RunState(run.address, FINISHED, reason, 5 if diverged else 0, **facts)
    return RunState(run.address, *_end(driver, status), **facts)


def _of_driver(driver: Holder) -> dict[str, Any]:
    return {"host": driver.host, "process": driver.process, "since": driver.since, "lease": driver.name}


def _at_work(status: DriverStatus, committed: int) -> dict[str, Any]:
    """What a running driver says of itself; how far it is only where that is further than what is committed."""
    names = ["seconds_left", "phase", "job", "application", "task_folder", "workers", "waits"]
    if status.round > committed:
        names += ["round", "rounds", "epoch", "epochs"]
    return {name: getattr(status, name) for name in names}


def _end(driver: Holder | None, status: DriverStatus | None) -> tuple[str, str | None, int]:
    """How a run ended that is not finished: its state, why, and the exit code."""
    if status is not None and status.state in (INTERRUPTED, FAILED):
        return status.state, status.reason, status.exit_code or 4
    if driver is None or driver.is_released:
        return INTERRUPTED, "its driver ended before the last round", 130
    return DEAD, f"its driver (process {driver.process} on {driver.host}) is gone", 4


def _newest(run: RunDirectory) -> tuple[int, int]:
    """The newest committed round, and the epochs that it has."""
    log = CommitLog(run.storage)
    for name in reversed(run.storage.names(ROUNDS)):
        if name.isdigit() and log.has_commit(int(name)):
            return int(name), log.metrics(int(name)).epoch
    return log.newest(), 0  # which says that they are lost


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def follow_key(state: RunState) -> Mapping[str, Any]:
    """Return what of a state is worth another line when it changes."""
    return {
        "state": state.state,
        "round": state.round,
        "phase": state.phase,
        "application": state.application,
        "waits": tuple(wait.what for wait in state.waits),
    }
