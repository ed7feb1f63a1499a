"""Fit the costs of the model to two short measured runs, one on a single worker and one on several."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nnlib.simulate.costs import Costs, SimulatedCluster, Workload
from nnlib.simulate.model import predict, work_seconds


@dataclass(frozen=True)
class Measured:
    """A short measured run of ``workload`` on ``workers`` workers.

    ``seconds`` is the time of the whole run, ``round_seconds`` that of its mean round (without the first, which warms
    up). ``train_seconds`` (training) and ``visit_seconds`` (reading and scoring) are of that mean round too, summed
    over the workers.
    """

    workload: Workload
    workers: int
    seconds: float
    round_seconds: float
    train_seconds: float
    visit_seconds: float


def fit_costs(one: Measured, other: Measured, slots: int, known: Costs) -> Costs:
    """Return the costs with which the model predicts both measured runs.

    ``one`` is a run on one worker, ``other`` on more; ``slots`` is the number of tasks that ran at once. ``known`` has
    the costs that were measured separately (of a commit, and per byte).

    The run on one worker gives the seconds per trained example and per visited row. Contention is how much longer the
    tasks of the other run took. What then remains of both rounds is the cost of jobs and of dispatching tasks, at
    least 0.
    """
    passes = one.workload.epochs / one.workload.rounds
    rates = replace(
        known,
        train_example=one.train_seconds / (passes * float(one.workload.trained_rows(1)[0])),
        visit_row=one.visit_seconds / float(one.workload.visited_rows(1)[0]),
        slots=slots,
    )
    alone = float(work_seconds(other.workload, rates, other.workers).sum())
    running = min(other.workers, slots)
    slower = (other.train_seconds + other.visit_seconds) / alone
    contention = 1.0 + (slower - 1.0) * (slots - 1) / (running - 1) if running > 1 else 1.0
    costs = replace(rates, contention=contention)
    costs = _overheads(costs, one, other, SimulatedCluster(slots))
    startup = [
        point.seconds - predict(point.workload, costs, SimulatedCluster(slots), [point.workers])[0].seconds
        for point in (one, other)
    ]
    return replace(costs, startup=max(0.0, sum(startup) / 2))


def _overheads(costs: Costs, one: Measured, other: Measured, cluster: SimulatedCluster) -> Costs:
    """Return ``costs`` with ``job`` and ``dispatch``: the line, over the number of tasks, through the seconds that both
    rounds took besides the work."""
    bare = replace(costs, job=0.0, dispatch=0.0)
    rest, tasks = [], []
    for point in (one, other):
        rest.append(point.round_seconds - predict(point.workload, bare, cluster, [point.workers])[0].round_seconds)
        tasks.append(point.workers + point.workload.count_reduce_tasks(point.workers))
    dispatch = max(0.0, (rest[1] - rest[0]) / (tasks[1] - tasks[0]))
    return replace(costs, dispatch=dispatch, job=max(0.0, rest[0] - dispatch * tasks[0]))
