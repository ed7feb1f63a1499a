"""Who was missing from a run, and whose tasks were lost on the way: a report must not pass over it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nnlib.core.run_result import MissingWorkers
from nnlib.run.journal import RecordedEvent
from nnlib.run.metrics_view import MetricsLine
from nnlib.run.run_events import AttemptFailedEvent, JobEvent, RoundEvent, WorkerLostEvent
from nnlib.run.spec import JobSpec

SHOWN = 50
"""Losses that a page lists, the first ones."""


@dataclass(frozen=True)
class Gap:
    """A job that a quorum did without all workers. ``round`` is what it trained (None: it only scored), ``scored`` the
    round whose models it scored; ``unscored`` of ``rows`` test rows, over all its trials, were not seen by them."""

    round: int | None
    scored: int
    workers: list[int]
    unscored: int
    rows: int


@dataclass(frozen=True)
class LostTask:
    """A task that was lost: ``when`` and whose it was, and what became of it."""

    when: str
    task: str
    why: str


def gaps(spec: JobSpec, lines: Iterable[MetricsLine], rounds: int) -> list[Gap]:
    """List the gaps of a run of ``rounds`` rounds, from its metrics, in their order."""
    groups: dict[int, list[tuple[int, MissingWorkers]]] = {}
    for line in lines:
        if line.scores is not None and line.scores.missing is not None:
            groups.setdefault(line.round, []).append((line.trial, line.scores.missing))
    return [
        Gap(
            round=scored + 1 if scored < rounds else None,
            scored=scored,
            workers=sorted({worker for _, missing in group for worker in missing.workers}),
            unscored=sum(missing.test_rows for _, missing in group),
            rows=sum(sum(spec.trials[trial].test_rows) for trial, _ in group),
        )
        for scored, group in sorted(groups.items())
    ]


def lost_tasks(events: Iterable[RecordedEvent]) -> list[LostTask]:
    """List workers that their group lost and attempts of tasks that failed, in the order of a run's events."""
    lost: list[LostTask] = []
    done = 0
    for recorded in events:
        match recorded.event:
            case RoundEvent(round=round_):
                done = round_
            case WorkerLostEvent(worker=worker, why=why):
                when = f"after round {done}" if done else "before round 1 was done"
                lost.append(LostTask(when, f"worker {worker}", f"{why}; replaced"))
            case AttemptFailedEvent(job=job, task=task, attempt=attempt, failure=failure):
                lost.append(LostTask(_job(job), task, f"attempt {attempt} {failure}"))
            case JobEvent(job=job, failed=failed):
                lost += [LostTask(_job(job), attempt, "failed") for attempt in failed]
    return lost


def _job(name: str) -> str:
    """A job as the rest of the page speaks of it: job ``train 1`` makes round 2 of the models of round 1."""
    phase, _, number = name.partition(" ")
    if phase == "train" and number.isdigit():
        return f"round {int(number) + 1}"
    return f"scores of round {number}" if phase == "score" else name
