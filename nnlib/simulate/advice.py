"""Advice drawn from predictions: the fewest workers that pay off, the best number, and how often to average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nnlib.simulate.costs import Costs, SimulatedCluster, Workload
from nnlib.simulate.model import TimePrediction, predict
from nnlib.simulate.speedup import speedup

WORTH_IT = 1.1
"""The least speed-up for which more than one worker is recommended."""

CHEAP_OVERHEAD = 0.1
"""The largest fraction of a round that may be spent on anything but training where a period is called cheap."""


@dataclass(frozen=True)
class Advice:
    """How many workers to use: ``break_even`` is the fewest that are faster than one (None: no number is), ``best`` the
    fastest number, ``best_speedup`` the time of one worker divided by the time of ``best`` workers."""

    break_even: int | None
    best: int
    best_speedup: float

    @property
    def is_worth_it(self) -> bool:
        """Whether the best number of workers reaches the speed-up `WORTH_IT`."""
        return self.best_speedup >= WORTH_IT

    def text(self) -> str:
        """Return the verdict as one sentence."""
        if self.break_even is None:
            return "do not distribute this: no number of workers is faster than one"
        if not self.is_worth_it:
            gain = f"{self.best_speedup:.2f} times as fast, with {self.best} workers"
            return f"do not distribute this: at best it is {gain}"
        return (
            f"faster than one worker from {self.break_even} workers on; fastest with {self.best}: "
            f"{self.best_speedup:.2f} times"
        )


def advise(one: TimePrediction, predictions: Sequence[TimePrediction]) -> Advice:
    """Compare ``predictions`` with ``one``, the prediction for one worker."""
    faster = [point.workers for point in predictions if point.workers > 1 and point.seconds < one.seconds]
    best = min([one, *predictions], key=lambda point: (point.seconds, point.workers))
    return Advice(min(faster) if faster else None, best.workers, speedup(one.seconds, best.seconds))


@dataclass(frozen=True)
class AveragingPeriod:
    """A run whose rounds have ``epochs`` epochs: the seconds it takes, and the fraction of its rounds, from 0 to 1,
    that is not spent on training."""

    epochs: int
    seconds: float
    overhead: float


def compare_periods(workload: Workload, costs: Costs, cluster: SimulatedCluster, workers: int) -> list[AveragingPeriod]:
    """Predict the run on ``workers`` workers with 1, 2, 5, 10, 20, ... epochs per round, and with one round of all.

    ``workload.epochs_per_round`` is one of the periods too. They come in ascending order.
    """
    lengths = {
        digit * 10**power for power in range(9) for digit in (1, 2, 5) if digit * 10**power < workload.epochs
    } | {max(workload.epochs, 1), workload.epochs_per_round}
    compared = []
    for length in sorted(length for length in lengths if length <= max(workload.epochs, 1)):
        point = predict(replace(workload, epochs_per_round=length), costs, cluster, [workers])[0]
        compared.append(AveragingPeriod(length, point.seconds, max(0.0, 1.0 - point.work / point.round_seconds)))
    return compared


def shortest_cheap_period(periods: Sequence[AveragingPeriod]) -> AveragingPeriod | None:
    """Return the first of ``periods``, sorted by length, whose overhead is at most `CHEAP_OVERHEAD`; None if none is.

    Seconds alone always favour the longest period. But the longer the period, the further workers drift apart, and what
    that costs in accuracy this model does not know. So it recommends the shortest cheap period, not the fastest.
    """
    return next((period for period in periods if period.overhead <= CHEAP_OVERHEAD), None)
