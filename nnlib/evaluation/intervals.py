"""Confidence intervals of scores: of one model over its test rows, and of a method over several splits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

Interval = tuple[float, float]

LEVEL = 0.95


def wilson(hits: int, rows: int, level: float = LEVEL) -> Interval:
    """Of a proportion ``hits / rows``, rows >= 1 (Wilson 1927): also right near 0 and 1, where hits +- sd is not."""
    z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    p, weight = hits / rows, z * z / rows
    middle = (p + weight / 2) / (1 + weight)
    half = z * math.sqrt(p * (1 - p) / rows + weight / (4 * rows)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def over_splits(values: Sequence[float], test_to_train: float, level: float = LEVEL) -> Interval:
    """Of the mean over n >= 2 random splits: mean +- t(n - 1) * sqrt((1/n + test_to_train) * s^2).

    Splits of one dataset share rows, so the plain interval of n independent values is far too narrow; ``test_to_train``
    (test rows / training rows) corrects that (Nadeau, Bengio 2003, Inference for the Generalization Error, eq. 9).
    """
    from scipy.special import stdtrit  # late: only cards and reports need it

    mean, variance = statistics.fmean(values), statistics.variance(values)
    half = float(stdtrit(len(values) - 1, 0.5 + level / 2)) * math.sqrt((1 / len(values) + test_to_train) * variance)
    return mean - half, mean + half
