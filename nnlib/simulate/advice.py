"""What follows from predictions: from how many workers on it pays, how many are best, how often to average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nnlib.simulate.costs import Cluster, Costs, Workload
from nnlib.simulate.model import Prediction, predict
from nnlib.simulate.speedup import speedup

WORTH_IT = 1.1
"""Below this speed-up more workers are not worth their trouble."""

OVERHEAD_SHARE = 0.1
"""The part of a run's rounds that may go to anything but training."""


@dataclass(frozen=True)
class Advice:
    """``break_even``: the fewest workers that are faster than one (None: none is); ``best``: the fastest number."""

    break_even: int | None
    best: int
    best_speedup: float

    @property
    def distribute(self) -> bool:
        return self.best_speedup >= WORTH_IT

    def text(self) -> str:
        """The verdict in words."""
        if self.break_even is None:
            return "do not distribute this: no number of workers is faster than one"
        if not self.distribute:
            gain = f"{self.best_speedup:.2f} times as fast, with {self.best} workers"
            return f"do not distribute this: at best it is {gain}"
        return (
            f"faster than one worker from {self.break_even} workers on; fastest with {self.best}: "
            f"{self.best_speedup:.2f} times"
        )


def advise(one: Prediction, predictions: Sequence[Prediction]) -> Advice:
    """Compare predictions with that of one worker."""
    faster = [point.workers for point in predictions if point.workers > 1 and point.seconds < one.seconds]
    best = min([one, *predictions], key=lambda point: (point.seconds, point.workers))
    return Advice(min(faster) if faster else None, best.workers, speedup(one.seconds, best.seconds))


@dataclass(frozen=True)
class Period:
    """A run that averages every ``epochs`` epochs; ``overhead`` is the part of its rounds that trains nothing."""

    epochs: int
    seconds: float
    overhead: float


def periods(workload: Workload, costs: Costs, cluster: Cluster, workers: int) -> list[Period]:
    """Seconds of the run for epochs per round of 1, 2, 5, 10, 20, ... and all epochs in one round."""
    lengths = {
        digit * 10**power for power in range(9) for digit in (1, 2, 5) if digit * 10**power < workload.epochs
    } | {max(workload.epochs, 1), workload.epochs_per_round}
    found = []
    for length in sorted(length for length in lengths if length <= max(workload.epochs, 1)):
        point = predict(replace(workload, epochs_per_round=length), costs, cluster, [workers])[0]
        found.append(Period(length, point.seconds, max(0.0, 1.0 - point.work / point.round)))
    return found


def shortest_cheap(found: Sequence[Period]) -> Period | None:
    """The shortest period whose overhead is at most a tenth; None if none is.

    Time alone always favours the longest period. How far workers drift apart meanwhile, and what that does to
    accuracy, this model does not know, so it names the shortest that is cheap, not the fastest.
    """
    return next((period for period in found if period.overhead <= OVERHEAD_SHARE), None)
