"""What workers of the local runner write: files of the tasks that run, and what the run directory keeps of others."""

from __future__ import annotations

import platform
from pathlib import Path

from jobs.runners.worker_logs import LogRequest, WorkerLog
from nnlib.core.errors import JobError
from nnlib.run.directory import TASK_LOGS
from nnlib.run.task_logs import parts_of, read_task_log


def find_log(request: LogRequest) -> WorkerLog:
    """Return what a worker has written: a `jobs.runners.worker_logs.FindLog`."""
    state, number = request.state, request.worker
    kept = read_task_log(request.run.storage, number)
    if request.job is not None:
        kept = parts_of(kept, request.job)
    live = ""
    is_current = request.job is None or request.job == state.job
    if is_current and state.task_folder is not None and state.host == platform.node():
        live = _live(Path(state.task_folder), number)
    if not kept and not live:
        raise JobError(_reason(request), run=request.run.address)
    where = [f"{request.run.address}/{TASK_LOGS}"] * bool(kept) + [f"{state.task_folder} (running)"] * bool(live)
    return WorkerLog(kept + live, " and ".join(where))


def _live(folder: Path, worker: int) -> str:
    """What the newest attempt of a worker's running task has written."""
    attempts = sorted(folder.glob(f"**/mapper/{worker:05d}/attempt-*/stderr"), key=lambda path: path.stat().st_mtime)
    return attempts[-1].read_text("utf-8", "replace") if attempts else ""


def _reason(request: LogRequest) -> str:
    """Why there is no log."""
    state = request.state
    in_round = "" if request.round is None else f" in round {request.round}"
    if not state.is_over and state.host != platform.node():
        return f"worker {request.worker} runs on {state.host}: what a running task writes is only seen there"
    return f"worker {request.worker} has written nothing{in_round}, or what it wrote was pushed out by newer messages"
