"""How a group of workers is shown: a line for each, and who keeps the others waiting."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from nnlib.core.events import GroupSeen, WorkerSeen

SHOWN = 16
"""Workers that are listed one by one; of more, the slowest alone."""
STRAGGLES = 0.2
"""A part of a round that the median worker waits from which on somebody is called slow."""


def group_lines(event: GroupSeen) -> list[str]:
    """The workers in their last round, and the stragglers by name."""
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


def stragglers(event: GroupSeen) -> Sequence[WorkerSeen]:
    """Workers that wait less than half as long as the median one, where that waits long; those first who wait least."""
    if len(event.workers) < 2 or event.seconds <= 0.0:
        return []
    middle = statistics.median(worker.wait for worker in event.workers)
    if middle < STRAGGLES * event.seconds:
        return []
    return sorted((worker for worker in event.workers if worker.wait < middle / 2), key=lambda worker: worker.wait)[:3]


def _share(worker: WorkerSeen, event: GroupSeen) -> str:
    return f"{worker.wait / event.seconds:.0%}" if event.seconds > 0.0 else "-"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
