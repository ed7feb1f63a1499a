"""The cost model: predict the seconds that a run takes on any number of workers.

    run   = startup + rounds * round + scoring
    round = fixed + map + transfer + reduce,    fixed = job + dispatch * tasks + commit

``map`` is the makespan of the map tasks, one per worker. A map task takes: start + slowdown * (reading, scoring and
training its rows) + encoding its partials. ``reduce`` is the makespan of the reduce tasks. A reduce task takes: start +
averaging its slices of all partials. ``scoring``, the job of 0 epochs at the end, is a round without training, transfer
and commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nnlib.core.errors import UsageError
from nnlib.core.seeds import Purpose, generator
from nnlib.simulate.costs import WIRE_EXPANSION, Costs, Float64Array, SimulatedCluster, Workload
from nnlib.simulate.schedule import abort_probability, draw_lengthening, makespan

DRAWS = 64
"""Rounds simulated where task times are random; the prediction is their mean."""

TRANSFERS = 3
"""Messages of a round that wait for each other: the model out, partials to the reducers, averages back."""


@dataclass(frozen=True)
class TimePrediction:
    """The predicted times of a run on ``workers`` workers, all in seconds.

    ``seconds``: the whole run; ``spread``: its standard deviation. ``map``, ``transfer``, ``reduce`` and ``fixed``: the
    phases of the mean round; ``work``: what ``map`` would be if tasks only trained. ``fails`` is the probability that
    the run ends because a task used up its attempts.
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
    def round_seconds(self) -> float:
        """Seconds of the mean round."""
        return self.map + self.transfer + self.reduce + self.fixed


def predict(
    workload: Workload, costs: Costs, cluster: SimulatedCluster, workers: Iterable[int]
) -> list[TimePrediction]:
    """Predict the run for each number of workers in ``workers``; no prediction depends on the other numbers."""
    return [_predict(workload, costs, cluster, count) for count in workers]


def _predict(workload: Workload, costs: Costs, cluster: SimulatedCluster, workers: int) -> TimePrediction:
    draws = DRAWS if cluster.is_random else 1
    reducers = workload.count_reduce_tasks(workers)
    mapping, reducing = np.ones((1, workers)), np.ones((1, reducers))
    if cluster.is_random:
        rng = generator(cluster.seed, Purpose.SIMULATE, worker=workers)
        mapping = draw_lengthening(cluster, draws, workers, rng)
        reducing = draw_lengthening(cluster, draws, reducers, rng)

    slowdown = costs.slowdown(min(workers, cluster.slots))
    visit = costs.task + slowdown * costs.visit_row * workload.visited_rows(workers)
    train = slowdown * costs.train_example * workload.epochs / workload.rounds * workload.trained_rows(workers)
    volume = workload.trials * workload.model_bytes
    map_ = makespan(mapping * (visit + train + costs.encode_byte * volume), cluster.slots)
    average = costs.task + costs.average_byte * volume * workers / reducers
    reduce = makespan(reducing * average, cluster.slots)
    transfer = _transfer(volume, workers, reducers, cluster)
    jobs = costs.job + costs.dispatch * (workers + reducers)
    rounds = map_ + reduce + transfer + jobs + costs.commit

    scoring = makespan(mapping * visit, cluster.slots) + makespan(reducing * costs.task, cluster.slots) + jobs
    total = costs.startup + workload.rounds * rounds.mean() + scoring.mean()
    return TimePrediction(
        workers=workers,
        seconds=float(total),
        spread=float(np.sqrt(workload.rounds) * rounds.std()),
        map=float(map_.mean()),
        transfer=transfer,
        reduce=float(reduce.mean()),
        fixed=jobs + costs.commit,
        work=float(makespan(train[None, :], cluster.slots)[0]),
        fails=abort_probability(cluster, (workload.rounds + 1) * (workers + reducers)),
    )


def _transfer(volume: float, workers: int, reducers: int, cluster: SimulatedCluster) -> float:
    """Return the seconds of one round on the network.

    All workers get the model (``volume`` bytes) over one link, that of the storage. Each reducer gets its slices of all
    partials over its machine's link. The averages return over one link.
    """
    sent = volume * (workers + WIRE_EXPANSION * workers / reducers + WIRE_EXPANSION)
    return TRANSFERS * cluster.latency + sent / cluster.bandwidth


def work_seconds(workload: Workload, costs: Costs, workers: int) -> Float64Array:
    """Return the seconds that each worker reads, scores and trains in one round with the machine to itself, shape
    (workers,)."""
    passes = workload.epochs / workload.rounds
    train = costs.train_example * passes * workload.trained_rows(workers)
    return costs.visit_row * workload.visited_rows(workers) + train


EXACT_UP_TO = 64
"""A range of worker numbers holds every number up to this one."""
POINTS_A_DOUBLING = 16
"""Numbers per doubling beyond that."""


def worker_counts(text: str) -> list[int]:
    """Parse numbers of workers: a list such as ``1,2,4,8``, or a range such as ``1..1024``.

    A range holds every number up to `EXACT_UP_TO`, then `POINTS_A_DOUBLING` numbers per doubling, and its last number.
    Raises `UsageError` for anything else, and for numbers outside 1 to 100,000.
    """
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
