"""From two short measurements, on one worker and on several, to the costs of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nnlib.simulate.costs import Cluster, Costs, Workload
from nnlib.simulate.model import predict, work_seconds


@dataclass(frozen=True)
class Measured:
    """A short run: ``seconds`` in all, ``round_seconds`` of its mean round (the first, which warms up, apart);
    ``train_seconds`` and ``visit_seconds`` are that round's training, and reading and scoring, summed over the workers.
    ``workload`` is what was run."""

    workload: Workload
    workers: int
    seconds: float
    round_seconds: float
    train_seconds: float
    visit_seconds: float


def fit_costs(one: Measured, other: Measured, slots: int, known: Costs) -> Costs:
    """The costs that give both measurements back.

    ``one`` is of one worker, ``other`` of more; ``known`` has what was measured by itself (commit, bytes). Rates of
    training and visiting are those of one worker; contention is what the others' tasks took beyond them; the rest of
    the two rounds is what jobs and the dispatch of tasks cost (not below 0).
    """
    passes = one.workload.epochs / one.workload.rounds
    rates = replace(
        known,
        train_example=one.train_seconds / (passes * float(one.workload.trained(1)[0])),
        visit_row=one.visit_seconds / float(one.workload.visited(1)[0]),
        slots=slots,
    )
    alone = float(work_seconds(other.workload, rates, other.workers).sum())
    running = min(other.workers, slots)
    slower = (other.train_seconds + other.visit_seconds) / alone
    contention = 1.0 + (slower - 1.0) * (slots - 1) / (running - 1) if running > 1 else 1.0
    costs = replace(rates, contention=contention)
    costs = _overheads(costs, one, other, Cluster(slots))
    startup = [
        point.seconds - predict(point.workload, costs, Cluster(slots), [point.workers])[0].seconds
        for point in (one, other)
    ]
    return replace(costs, startup=max(0.0, sum(startup) / 2))


def _overheads(costs: Costs, one: Measured, other: Measured, cluster: Cluster) -> Costs:
    """``job`` and ``dispatch``: the line through what the two rounds took besides the work, by their tasks."""
    bare = replace(costs, job=0.0, dispatch=0.0)
    rest, tasks = [], []
    for point in (one, other):
        rest.append(point.round_seconds - predict(point.workload, bare, cluster, [point.workers])[0].round)
        tasks.append(point.workers + point.workload.reduce_tasks(point.workers))
    dispatch = max(0.0, (rest[1] - rest[0]) / (tasks[1] - tasks[0]))
    return replace(costs, dispatch=dispatch, job=max(0.0, rest[0] - dispatch * tasks[0]))
