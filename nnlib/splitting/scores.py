"""The scores of a splitting study: of every partition on every split, and what follows from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nnlib.evaluation.statistics import Comparison, Interval, compare, over_splits
from nnlib.splitting.properties import PROPERTIES

WHOLE = "whole"
"""Stands for a method where the whole net trained on."""

Net = tuple[int, int]
"""Split and fold of a whole net that was cut."""


@dataclass(frozen=True)
class PartitionScore:
    """One recombined net: the split and fold of its whole net, its partition (None: the whole net trained on), the
    methods that chose it for that net, its number among the partitions, its trial in the run.

    ``score``: accuracy on the test rows, or R2. ``before``: that of the whole net before it was cut. ``properties``:
    `nnlib.splitting.properties.PROPERTIES`; {} of the whole.
    """

    split: int
    fold: int
    partition: str | None
    methods: tuple[str, ...]
    number: int
    trial: int
    score: float | None
    loss: float | None
    validation_loss: float | None
    before: float | None
    status: str
    properties: Mapping[str, float]

    @property
    def net(self) -> Net:
        """The whole net that was cut."""
        return self.split, self.fold

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able data, each property under its name."""
        data: dict[str, Any] = asdict(self) | {"methods": list(self.methods)} | dict.fromkeys(PROPERTIES)
        properties: Mapping[str, float] = data.pop("properties")
        return {**data, **properties}


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a property with the score, over the partitions of a net.

    ``rank``: the mean over nets; ``interval``: 95 %, over nets where there are several (corrected, for nets share
    rows), else of the one correlation (Bonett and Wright 2000). ``by_net``: one for each net, None where the property
    or the score is the same for all its partitions. ``partitions``: of a net.
    """

    property: str
    rank: float | None
    interval: Interval | None
    by_net: tuple[float | None, ...]
    partitions: int


@dataclass(frozen=True)
class MethodResult:
    """What a method's partitions reach: the mean over nets of the mean, least and greatest score of a net's partitions;
    ``sd`` within a net; ``compared`` with the whole net trained as long, net by net, by the mean of its partitions."""

    method: str
    partitions: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    compared: Comparison


def whole_scores(scores: Sequence[PartitionScore]) -> dict[Net, PartitionScore]:
    """Return the whole nets that trained on, by net."""
    return {score.net: score for score in scores if score.partition is None}


def method_results(
    scores: Sequence[PartitionScore], methods: Sequence[str], test_to_train: float
) -> list[MethodResult]:
    """Compare each method with the whole net. ``test_to_train``: test rows / training rows, which corrects the
    tests for rows that splits share."""
    whole = whole_scores(scores)
    return [_result(method, scores, whole, test_to_train) for method in methods]


def _result(
    method: str, scores: Sequence[PartitionScore], whole: Mapping[Net, PartitionScore], test_to_train: float
) -> MethodResult:
    by_net = [
        [each.score for each in scores if each.net == net and method in each.methods and each.score is not None]
        for net in whole
    ]
    known = [values for values in by_net if values]
    means = [statistics.fmean(values) if values else None for values in by_net]
    spreads = [statistics.stdev(values) for values in known if len(values) > 1]
    return MethodResult(
        method,
        max(map(len, by_net), default=0),
        mean_of([value for value in means if value is not None]),
        mean_of(spreads),
        mean_of([min(values) for values in known]),
        mean_of([max(values) for values in known]),
        compare([each.score for each in whole.values()], means, test_to_train),
    )


def correlations(scores: Sequence[PartitionScore], test_to_train: float) -> list[Correlation]:
    """Correlate each property with the score over each net's partitions."""
    return [_correlation(name, scores, test_to_train) for name in PROPERTIES]


def _correlation(name: str, scores: Sequence[PartitionScore], test_to_train: float) -> Correlation:
    ranks: list[float | None] = []
    sizes = []
    for net in whole_scores(scores):
        pairs = [
            (each.properties[name], each.score)
            for each in scores
            if each.net == net and each.partition is not None and each.score is not None
        ]
        sizes.append(len(pairs))
        ranks.append(rank_correlation(pairs))
    known = [rank for rank in ranks if rank is not None]
    interval = None
    if len(known) > 1:
        low, high = over_splits(known, test_to_train)
        interval = max(-1.0, low), min(1.0, high)
    elif known:
        interval = rank_interval(known[0], max(sizes))
    return Correlation(name, mean_of(known), interval, tuple(ranks), max(sizes, default=0))


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rank correlation of pairs; None for fewer than three, or where one side never varies."""
    from scipy.stats import spearmanr  # late: it takes a tenth of a second

    if len(pairs) < 3 or any(len({round(pair[side], 12) for pair in pairs}) < 2 for side in (0, 1)):
        return None
    first, second = zip(*pairs, strict=True)
    return float(spearmanr(first, second).statistic)


def rank_interval(rank: float, pairs: int, level: float = 0.95) -> Interval | None:
    """Return the interval of Spearman's correlation of ``pairs`` independent pairs, by Fisher's transformation with the
    variance (1 + r^2 / 2) / (n - 3) (Bonett and Wright 2000); None for fewer than five."""
    if pairs < 5 or abs(rank) >= 1.0:
        return None
    half = statistics.NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt((1 + rank * rank / 2) / (pairs - 3))
    return math.tanh(math.atanh(rank) - half), math.tanh(math.atanh(rank) + half)


def chance_spread(accuracy: float, rows: int) -> float:
    """Return the standard deviation of the accuracy on ``rows`` test rows that chance alone gives a net whose true
    accuracy is this: that of a binomial proportion."""
    return math.sqrt(accuracy * (1 - accuracy) / rows)


def to_table(scores: Sequence[PartitionScore]) -> Any:
    """The scores as an Arrow table, one row each."""
    import pyarrow as pa

    whole_numbers = {"split", "fold", "number", "trial"}
    kinds = {"partition": pa.string(), "status": pa.string(), "methods": pa.list_(pa.string())}

    def fields() -> Iterator[Any]:
        for name in scores[0].to_json():
            yield pa.field(name, kinds.get(name, pa.int64() if name in whole_numbers else pa.float64()))

    return pa.Table.from_pylist([score.to_json() for score in scores], schema=pa.schema(fields()))


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
