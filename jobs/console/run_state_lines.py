"""The lines that `nnjobs status` prints about a run."""

from __future__ import annotations

import time
from collections.abc import Sequence

from jobs.console.progress_display import duration_text
from jobs.console.training_display import resume_line, shown_path
from nnlib.core.waiting import wait_line
from nnlib.run.driver_status import FAILED, FINISHED, INTERRUPTED
from nnlib.run.run_state import DEAD, STARTING, RunState

SHOWN_WORKERS = 16
"""Workers that are listed one by one; of more, only this many of the slowest."""


def state_lines(state: RunState) -> list[str]:
    """Return what is known of a run: its state, how far it is, its driver, its workers, what to do next."""
    lines = [f"{shown_path(state.run_dir)}: {headline(state)}"]
    if state.state == STARTING:
        return [*lines, _driver_line(state)]
    lines.append(f"  {progress_text(state)}")
    lines.append(f"  last commit: round {state.committed}{_at(state.committed_time)}")
    if not state.is_over:
        lines.append(_driver_line(state))
        if state.phase is not None:
            lines.append(f"  {state.phase}")
        if state.application is not None:
            lines.append(f"  {state.application}" + ("" if state.job is None else f": {state.job}"))
        lines += [f"  waits: {wait_line(wait)}" for wait in state.waits]
        lines += worker_lines(state)
    elif state.state != FINISHED:
        lines += ["to go on:", f"  {resume_line(state.run_dir)}"]
    return lines


def headline(state: RunState) -> str:
    """Return the state of a run with its reason, in one line."""
    texts = {FINISHED: "finished", INTERRUPTED: "interrupted", FAILED: "failed", DEAD: "stopped"}
    text = texts.get(state.state, state.state)
    return text if state.reason is None else f"{text}: {state.reason}"


def progress_text(state: RunState) -> str:
    """Return how far a run is: rounds, epochs, the time left."""
    of = "" if state.rounds is None else f" of {state.rounds}"
    text = f"round {state.round}{of}, epoch {state.epoch} of {state.epochs}"
    if state.runner:
        text = (
            f"{text}, {state.runner}, {state.worker_count} worker{'s' * (state.worker_count != 1)}, {state.mode} mode"
        )
    return text if state.seconds_left is None else f"{text}, about {duration_text(state.seconds_left)} left"


def follow_line(state: RunState) -> str:
    """Return one line about a run, for a log that grows."""
    facts = [time.strftime("%H:%M:%S"), headline(state)]
    if state.state != STARTING:
        facts.append(progress_text(state))
    if not state.is_over:
        facts += [state.application] if state.application is not None else []
        facts += [state.phase] if state.phase is not None else []
        facts += [f"waits: {wait_line(wait)}" for wait in state.waits]
    return "  ".join(facts)


def worker_lines(state: RunState) -> Sequence[str]:
    """Return a line for each worker of the newest round, or for the slowest where there are many."""
    known = [worker for worker in state.workers if worker.examples_per_second is not None]
    shown = state.workers
    head: list[str] = []
    if len(shown) > SHOWN_WORKERS:
        shown = tuple(sorted(known, key=lambda worker: worker.examples_per_second or 0.0)[:SHOWN_WORKERS])
        head = [f"  the slowest of {state.worker_count} workers:"]
    return [
        *head,
        *(
            f"  worker {worker.worker}: "
            + ("-" if worker.examples_per_second is None else f"{worker.examples_per_second:,.0f} rows/s")
            + (f" on {worker.host}" if worker.host else "")
            for worker in shown
        ),
    ]


def _driver_line(state: RunState) -> str:
    heard = "" if state.heard is None else f", last heard of {_at(state.heard).strip()}"
    return f"  driver: process {state.process} on {state.host}, since {_at(state.since).strip()}{heard}"


def _at(moment: float | None) -> str:
    if moment is None:
        return ""
    local = time.localtime(moment)
    is_today = local[:3] == time.localtime()[:3]
    return time.strftime(" %H:%M:%S" if is_today else " %Y-%m-%d %H:%M:%S", local)
