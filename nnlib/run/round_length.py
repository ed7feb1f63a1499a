"""Which epochs a round trains: a fixed number of them, or as many as the workers' drift and a round's cost suggest.

With ``train.epochs_per_round: auto`` a round's length follows from the round before it, by what is committed there, so
a resumed, replayed or distributed run finds the same ones. Two costs are balanced, both in epochs of work an epoch of
progress:

- a round's overhead, shared by its H epochs: c / H, with c = ``sync.round_cost``;
- what is lost by training apart: (d / D)^2, where d is the relative distance of a worker from the average. Bounds on
  local SGD charge the mean squared distance of the workers (Stich 2019, "Local SGD converges fast and communicates
  little"; Wang and Joshi 2019, "Adaptive communication strategies to achieve the best error-runtime trade-off",
  theorem 1), which grows with H as a random walk's does: d^2 = H d_0^2 / H_0 after a round of H_0 epochs that ended at
  distance d_0.

The sum is least at H = (D / d_0) sqrt(c H_0). AdaComm has the same root, of the loss where this has the distance: the
distance is known to every round without a pass over the training rows. As the workers' steps shrink, rounds grow longer
(the order of Lin et al. 2020, "Don't use large mini-batches, use local SGD": averaging often first).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from nnlib.config.schema import Config
from nnlib.run.round_metrics import RoundMetrics, TrialMetrics

APART = 0.2
"""D: workers this far from their average (relative to it) are charged as much again as they train."""

CHANGE = 2
"""The next round is at most this many times as long, or as short: a distance says little of much longer rounds."""


def round_count(config: Config) -> int | None:
    """Count the rounds of a whole run, the last of which may be shorter; None where their lengths are chosen on the
    way."""
    length = config.train.epochs_per_round
    return None if length == "auto" else -(-config.train.epochs // length)


def drained_round(config: Config, round_: int) -> int:
    """Return the first round >= ``round_`` after which all workers hold the same model.

    Without ``sync.overlap`` that is ``round_``; with it, every ``sync.overlap_drain``-th round and the last.
    """
    if not config.sync.overlap:
        return round_
    drain = config.sync.overlap_drain
    last = round_count(config)
    assert last is not None
    return min(-(-round_ // drain) * drain, last)


def next_epochs(config: Config, before: range, drift: float | None) -> range:
    """Compute the global epochs (from 0) of the round after one of the epochs ``before``: none at the end of the run.

    ``drift`` is `combined_drift` of that round. Before the first round, ``before`` is ``range(0)``.
    """
    length = config.train.epochs_per_round
    if length == "auto":
        length = next_length(len(before), drift, config.sync.round_cost or 0.0) if before else 1
    return range(before.stop, min(before.stop + length, config.train.epochs))


def next_length(length: int, drift: float | None, round_cost: float) -> int:
    """Compute the epochs of the round after one of ``length`` epochs; ``round_cost`` in epochs (see the module's text).

    Without a distance, because it is beyond float64, the round is halved.
    """
    if drift is None:
        best = 0.0
    elif drift == 0.0:
        best = math.inf
    else:
        best = APART / drift * math.sqrt(round_cost * length)  # IEEE operations alone: everywhere the same
    return max(1, math.floor(min(max(best, length / CHANGE), length * CHANGE)))


def combined_drift(trials: Sequence[TrialMetrics]) -> float | None:
    """Compute one distance for all trials of a round, which share its length: of the trial whose median worker is
    farthest from the average.

    Trials that trained nothing do not count. The median, because one worker with few or odd rows should not decide for
    all. None where it is beyond float64.
    """
    medians = []
    for trial in trials:
        distances = [worker.drift.relative for worker in trial.workers]
        if distances:
            medians.append(statistics.median(math.inf if distance is None else distance for distance in distances))
    worst = max(medians, default=0.0)
    return worst if math.isfinite(worst) else None


def epochs_after(config: Config, metrics: RoundMetrics) -> range:
    """Compute the epochs of the round that follows a checkpoint, from the metrics committed with it."""
    return next_epochs(config, metrics.epochs, combined_drift(metrics.trials))
