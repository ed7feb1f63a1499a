"""The lines about the workers of a collective job: one each, and the slowest."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from nnlib.core.events import GroupProgress, WorkerProgress

SHOWN = 16
"""Up to this many workers are listed one by one; of more, only the slowest."""
LONG_WAIT = 0.2
"""If the median worker waits for less than this part of a round, no worker is called slow."""


def group_lines(event: GroupProgress) -> list[str]:
    """Return a line for each worker in its last round, and one that names the slowest."""
    lines = [
        f"  worker {worker.worker}: round {event.round}, loss {_number(worker.loss, '.4f')}, "
        f"{_number(worker.examples_per_second, ',.0f')} examples/s, waits {_share(worker, event)}"
        for worker in event.workers[:SHOWN]
    ]
    if len(event.workers) > SHOWN:
        lines = [f"  {len(event.workers)} workers, in round {event.round}"]
    slow = stragglers(event)
    if slow:
        names = ", ".join(str(worker.worker) for worker in slow)
        share = statistics.median(worker.wait for worker in event.workers) / event.seconds
        lines.append(f"  slowest: worker {names}; the others wait for {share:.0%} of a round")
    return lines


def stragglers(event: GroupProgress) -> Sequence[WorkerProgress]:
    """Return up to three workers that wait less than half as long as the median, the least waiting first.

    If the median worker waits for a short time only, there are none.
    """
    if len(event.workers) < 2 or event.seconds <= 0.0:
        return []
    middle = statistics.median(worker.wait for worker in event.workers)
    if middle < LONG_WAIT * event.seconds:
        return []
    return sorted((worker for worker in event.workers if worker.wait < middle / 2), key=lambda worker: worker.wait)[:3]


def _share(worker: WorkerProgress, event: GroupProgress) -> str:
    return f"{worker.wait / event.seconds:.0%}" if event.seconds > 0.0 else "-"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
