"""The cost model: seconds of a run on any number of workers.

    run   = startup + rounds * round + scoring
    round = fixed + map + transfer + reduce,    fixed = job + dispatch * tasks + commit

``map`` is the makespan of one task a worker: start + slowdown * (reading, scoring and training its rows) + encoding
its partials. ``reduce`` is the makespan of the reduce tasks: start + averaging their share of all partials.
``scoring``, the job of 0 epochs at the end, is a round that trains, moves and commits nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nnlib.core.errors import UsageError
from nnlib.core.seeds import Purpose, generator
from nnlib.simulate.costs import WIRE_EXPANSION, Cluster, Costs, Seconds, Workload
from nnlib.simulate.schedule import fails_for_good, lengthening, makespan

DRAWS = 64
"""Rounds that are simulated where luck plays a part."""

TRANSFERS = 3
"""Messages one after another in a round: model out, partials to the reducers, averages back."""


@dataclass(frozen=True)
class Prediction:
    """Seconds of a run on ``workers`` workers, and of the phases of one (mean) round.

    ``spread`` is the standard deviation of ``seconds``; ``work`` is what ``map`` would be if tasks did nothing but
    train, ``fails`` the chance that the run ends because a task used up its attempts.
    """

    workers: int
    seconds: float
    spread: float
    map: float
    transfer: float
    reduce: float
    fixed: float
    work: float
    fails: float

    @property
    def round(self) -> float:
        return self.map + self.transfer + self.reduce + self.fixed


def predict(workload: Workload, costs: Costs, cluster: Cluster, workers: Iterable[int]) -> list[Prediction]:
    """A prediction for each number of workers, which does not depend on the other numbers asked for."""
    return [_predict(workload, costs, cluster, count) for count in workers]


def _predict(workload: Workload, costs: Costs, cluster: Cluster, workers: int) -> Prediction:
    draws = DRAWS if cluster.random else 1
    reducers = workload.reduce_tasks(workers)
    mapping, reducing = np.ones((1, workers)), np.ones((1, reducers))
    if cluster.random:
        rng = generator(cluster.seed, Purpose.SIMULATE, worker=workers)
        mapping, reducing = lengthening(cluster, draws, workers, rng), lengthening(cluster, draws, reducers, rng)

    slowdown = costs.slowdown(min(workers, cluster.slots))
    visit = costs.task + slowdown * costs.visit_row * workload.visited(workers)
    train = slowdown * costs.train_example * workload.epochs / workload.rounds * workload.trained(workers)
    volume = workload.trials * workload.model_bytes
    map_ = makespan(mapping * (visit + train + costs.encode_byte * volume), cluster.slots)
    average = costs.task + costs.average_byte * volume * workers / reducers
    reduce = makespan(reducing * average, cluster.slots)
    transfer = _transfer(volume, workers, reducers, cluster)
    jobs = costs.job + costs.dispatch * (workers + reducers)
    rounds = map_ + reduce + transfer + jobs + costs.commit

    scoring = makespan(mapping * visit, cluster.slots) + makespan(reducing * costs.task, cluster.slots) + jobs
    total = costs.startup + workload.rounds * rounds.mean() + scoring.mean()
    return Prediction(
        workers=workers,
        seconds=float(total),
        spread=float(np.sqrt(workload.rounds) * rounds.std()),
        map=float(map_.mean()),
        transfer=transfer,
        reduce=float(reduce.mean()),
        fixed=jobs + costs.commit,
        work=float(makespan(train[None, :], cluster.slots)[0]),
        fails=fails_for_good(cluster, (workload.rounds + 1) * (workers + reducers)),
    )


def _transfer(volume: float, workers: int, reducers: int, cluster: Cluster) -> float:
    """Seconds on the network in one round: every worker gets the model from one store, whose link they share; each
    reducer gets its slices of all partials over its own; the averages come back over one."""
    sent = volume * (workers + WIRE_EXPANSION * workers / reducers + WIRE_EXPANSION)
    return TRANSFERS * cluster.latency + sent / cluster.bandwidth


def work_seconds(workload: Workload, costs: Costs, workers: int) -> Seconds:
    """Seconds of reading, scoring and training of each worker in one round, alone on the machine."""
    passes = workload.epochs / workload.rounds
    return costs.visit_row * workload.visited(workers) + costs.train_example * passes * workload.trained(workers)


EXACT_UP_TO, POINTS_A_DOUBLING = 64, 16


def worker_counts(text: str) -> list[int]:
    """``1,2,4,8`` as it stands; ``1..1024``: every number up to 64, then 16 to each doubling, and the last."""
    counts: set[int] = set()
    try:
        for part in text.split(","):
            first, dots, last = part.partition("..")
            counts |= set(_range(int(first), int(last))) if dots else {int(part)}
    except ValueError:
        counts = {0}
    if not counts or min(counts) < 1:
        raise UsageError(f"--workers wants numbers of at least 1, such as 1,2,4,8 or 1..1024; got {text!r}")
    if max(counts) > 100_000:
        raise UsageError(f"--workers: at most 100000, got {max(counts)}")
    return sorted(counts)


def _range(first: int, last: int) -> Sequence[int]:
    if last < first:
        raise ValueError
    low = range(first, min(last, EXACT_UP_TO) + 1)
    octaves = np.arange(0.0, np.log2(max(last / EXACT_UP_TO, 1.0)), 1 / POINTS_A_DOUBLING)
    high = {round(EXACT_UP_TO * 2**octave) for octave in octaves} if last > EXACT_UP_TO else set()
    return sorted({*low, *(count for count in high if count >= first), last})
