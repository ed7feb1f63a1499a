"""Statistics of scores: over the splits of one method, between two methods on the same splits, and by class.

Values may be missing (None, or not finite): they are left out, and counted. Every function returns plain numbers, None
where a number is not defined, so that a table can say so instead of failing.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from nnlib.run.score_summary import CalibrationCounts

Scores = Sequence[float | None]
Interval = tuple[float, float]
LEVEL = 0.95


def wilson(hits: int, rows: int, level: float = LEVEL) -> Interval:
    """Compute the interval of a proportion ``hits / rows``, rows >= 1 (Wilson 1927): also right near 0 and 1, where
    hits +- sd is not.

    `scipy.stats.binomtest` gives the same numbers (to 2e-16) in a thousand times the time, and its import takes longer
    than a report's figures.
    """
    z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    p, weight = hits / rows, z * z / rows
    middle = (p + weight / 2) / (1 + weight)
    half = z * math.sqrt(p * (1 - p) / rows + weight / (4 * rows)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def over_splits(values: Sequence[float], test_to_train: float, level: float = LEVEL) -> Interval:
    """Compute the interval of the mean over n >= 2 random splits: mean +- t(n - 1) * sqrt((1/n + test_to_train) * s^2).

    Splits of one dataset share rows, so the plain interval of n independent values is far too narrow; ``test_to_train``
    (test rows / training rows) corrects that (Nadeau, Bengio 2003, Inference for the Generalization Error, eq. 9).
    """
    from scipy.special import stdtrit  # late: only cards and reports need it

    mean, variance = statistics.fmean(values), statistics.variance(values)
    half = float(stdtrit(len(values) - 1, 0.5 + level / 2)) * math.sqrt((1 / len(values) + test_to_train) * variance)
    return mean - half, mean + half


@dataclass(frozen=True)
class Summary:
    """Of the known values of a sample. ``sd`` (n - 1 in the denominator) and ``interval`` need two of them."""

    n: int
    missing: int
    mean: float | None
    sd: float | None
    interval: Interval | None
    low: float | None
    high: float | None


def summarize(values: Scores, test_to_train: float = 0.0) -> Summary:
    """Mean, spread and the 95 % t interval of the mean (`over_splits`).

    ``test_to_train`` (test rows / training rows) corrects the interval for the rows that random splits of one dataset
    share; 0 is the ordinary interval of independent values.
    """
    known = [value for value in values if _known(value)]
    missing = len(values) - len(known)
    if not known:
        return Summary(0, missing, None, None, None, None, None)
    sd = interval = None
    if len(known) > 1:
        sd, interval = statistics.stdev(known), over_splits(known, test_to_train)
    return Summary(len(known), missing, statistics.fmean(known), sd, interval, min(known), max(known))


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same n splits; ``difference`` is the mean of second - first.

    ``t``, ``p`` and ``interval`` are those of the corrected resampled t-test, None where there is no variance to judge
    by; ``wilcoxon_p`` of the signed-rank test, None where all pairs are equal; ``effect`` is Cohen's d of paired
    samples, mean / sd of the differences. ``missing`` counts pairs that were left out.
    """

    n: int
    missing: int
    first: float | None
    second: float | None
    difference: float | None
    sd: float | None
    interval: Interval | None
    t: float | None
    p: float | None
    wilcoxon_p: float | None
    effect: float | None
    equal: bool


def compare(first: Scores, second: Scores, test_to_train: float) -> Comparison:
    """Pair by pair, two-sided.

    t = mean / sqrt((1/n + test_to_train) * s^2) with n - 1 degrees of freedom (Nadeau, Bengio 2003, Inference for the
    Generalization Error, eq. 9): the plain paired t-test takes splits that share rows for independent ones, and finds
    differences where there are none. Raises `ValueError` if the samples differ in length.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if _known(a) and _known(b)]
    missing, n = len(first) - len(pairs), len(pairs)
    if not n:
        return Comparison(0, missing, None, None, None, None, None, None, None, None, None, False)
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    apart = [b - a for a, b in pairs]
    mean = statistics.fmean(apart)
    sd = interval = t = p = effect = None
    if n > 1:
        sd = statistics.stdev(apart)
        # Differences of equal size leave rounding behind, whose variance says nothing.
        if sd > 1e-12 * max(map(abs, [*left, *right])):
            from scipy.special import stdtr  # late: scipy takes a tenth of a second

            t = mean / (sd * math.sqrt(1 / n + test_to_train))
            p = 2.0 * float(stdtr(n - 1, -abs(t)))
            interval, effect = over_splits(apart, test_to_train), mean / sd
        else:
            sd = 0.0
    return Comparison(
        n,
        missing,
        statistics.fmean(left),
        statistics.fmean(right),
        mean,
        sd,
        interval,
        t,
        p,
        _wilcoxon(apart),
        effect,
        not any(apart),
    )


def verdict(comparison: Comparison, p: float | None = None) -> str:
    """The comparison in plain words; ``p`` replaces the comparison's where it was adjusted (`holm`)."""
    if comparison.n == 0:
        return "no common split was scored"
    if comparison.equal:
        return "equal on every split" if comparison.n > 1 else "equal on the one common split"
    if comparison.n == 1:
        return "one common split: nothing can be said"
    if comparison.p is None:
        return "the same difference on every split: a test has no variance to judge by"
    if (comparison.p if p is None else p) >= 1.0 - LEVEL:
        return "not distinguishable"
    return "higher" if (comparison.difference or 0.0) > 0.0 else "lower"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P values adjusted for being several (Holm 1979): each still holds together with the others. None stays None."""
    ranked = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - rank)))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class ClassScore:
    """One class of a confusion matrix; None where the denominator is 0."""

    rows: int
    predicted: int
    hits: int
    precision: float | None
    recall: float | None
    f1: float | None


def class_scores(rows: Sequence[int], hits: Sequence[int], predicted: Sequence[int]) -> list[ClassScore]:
    """Precision, recall and F1 of every class from its rows, its hits and how often it was predicted."""
    return [
        ClassScore(n, k, hit, _ratio(hit, k), _ratio(hit, n), _ratio(2 * hit, n + k))
        for n, hit, k in zip(rows, hits, predicted, strict=True)
    ]


@dataclass(frozen=True)
class Confused:
    """Rows of class ``true`` taken for ``predicted`` (indices), and their share of the rows of class ``true``."""

    true: int
    predicted: int
    rows: int
    share: float


def most_confused(confusion: npt.ArrayLike, limit: int = 10) -> list[Confused]:
    """The pairs with the most rows, off the diagonal; of equals the one with lower classes first."""
    matrix = np.asarray(confusion, np.int64)
    pairs = [
        Confused(true, predicted, int(matrix[true, predicted]), float(matrix[true, predicted] / matrix[true].sum()))
        for true, predicted in zip(*(index.tolist() for index in np.nonzero(matrix)), strict=True)
        if true != predicted
    ]
    return sorted(pairs, key=lambda pair: (-pair.rows, pair.true, pair.predicted))[:limit]


@dataclass(frozen=True)
class Bin:
    """Rows whose confidence lies in (low, high]: their mean confidence and the share that was right (None: no rows)."""

    low: float
    high: float
    rows: int
    confidence: float | None
    accuracy: float | None


def reliability(counts: CalibrationCounts) -> list[Bin]:
    """Make the reliability table of calibration counts."""
    bins = len(counts.rows)
    return [
        Bin(k / bins, (k + 1) / bins, n, total / n if n else None, _ratio(hit, n))
        for k, (n, hit, total) in enumerate(zip(counts.rows, counts.hits, counts.confidence, strict=True))
    ]


def calibration_error(table: Sequence[Bin]) -> float | None:
    """The expected calibration error (Naeini et al. 2015): the mean of |accuracy - confidence|, weighted by rows."""
    total = sum(each.rows for each in table)
    if not total:
        return None
    gaps = [
        each.rows * abs(each.accuracy - each.confidence)
        for each in table
        if each.accuracy is not None and each.confidence is not None
    ]
    return math.fsum(gaps) / total


def _wilcoxon(apart: Sequence[float]) -> float | None:
    """Two-sided p of the signed-rank test (Wilcoxon 1945), pairs without a difference left out."""
    apart = [round(value, 12) for value in apart]  # differences that are ties but for rounding must be ties
    if not any(apart):
        return None
    from scipy.stats import wilcoxon

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that small samples with ties are approximate
        return float(wilcoxon(apart, zero_method="wilcox").pvalue)


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
