"""The statistics of a splitting study, by hand and against scipy."""

from __future__ import annotations

from typing import Any

import pytest

from nnlib.splitting.properties import PROPERTIES
from nnlib.splitting.scores import (
    PartitionScore,
    chance_spread,
    correlations,
    method_results,
    rank_correlation,
    rank_interval,
    to_table,
)


def score(split: int, partition: str | None, value: float | None, *, cut: float = 0.0, **more: Any) -> PartitionScore:
    methods = ("whole",) if partition is None else ("all",)
    properties = {} if partition is None else {**dict.fromkeys(PROPERTIES, 0.5), "cut_weight": cut}
    facts: dict[str, Any] = {"loss": 1.0, "validation_loss": None, "before": 0.6, "status": "active"}
    facts |= {"fold": 0, "number": 1, "trial": 0, "methods": methods, "properties": properties} | more
    return PartitionScore(split=split, partition=partition, score=value, **facts)


SCORES = [
    *(score(0, None, 0.9), score(0, "aab", 0.8, cut=0.1), score(0, "aba", 0.6, cut=0.2), score(0, "abb", 0.7, cut=0.3)),
    *(score(1, None, 0.8), score(1, "aab", 0.7, cut=0.3), score(1, "aba", 0.6, cut=0.2), score(1, "abb", 0.5, cut=0.1)),
]


def test_methods_against_the_whole_net() -> None:
    (found,) = method_results(SCORES, ["all"], 0.5)
    assert (found.partitions, found.mean, found.low, found.high) == (3, *map(pytest.approx, (0.65, 0.55, 0.75)))
    assert found.sd == pytest.approx(0.1)
    assert found.compared.difference == pytest.approx(-0.2)
    assert found.compared.n == 2


def test_ranks_by_hand_and_by_net() -> None:
    by_cut = next(each for each in correlations(SCORES, 0.5) if each.property == "cut_weight")
    assert list(by_cut.by_net) == [pytest.approx(-0.5), pytest.approx(1.0)]
    assert by_cut.rank == pytest.approx(0.25)
    assert by_cut.interval == (-1.0, 1.0), "two nets say next to nothing"
    constant = next(each for each in correlations(SCORES, 0.5) if each.property == "balance")
    assert (constant.rank, constant.interval, constant.by_net) == (None, None, (None, None))


def test_one_correlation_has_the_interval_of_bonett_and_wright() -> None:
    pairs = [(float(index), float((index * 7) % 20)) for index in range(20)]
    rank = rank_correlation(pairs)
    assert rank is not None
    low, high = rank_interval(rank, 20) or (0.0, 0.0)
    assert low < rank < high
    assert list(rank_interval(0.0, 103) or ()) == pytest.approx([-0.1936, 0.1936], abs=2e-4)
    assert rank_interval(0.5, 4) is None
    assert rank_correlation(pairs[:2]) is None


def test_chance() -> None:
    assert chance_spread(0.5, 100) == pytest.approx(0.05)


def test_the_table_has_a_column_for_each_property() -> None:
    table = to_table([*SCORES, score(2, "aab", None)])
    assert table.num_rows == 9
    assert set(PROPERTIES) < set(table.column_names)
    assert table["cut_weight"].to_pylist()[:2] == [None, 0.1]
