"""Advice from predictions worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cost_cases import EIGHT

from nnlib.simulate.advice import advise, compare_periods, shortest_cheap_period
from nnlib.simulate.costs import Costs, SimulatedCluster, Workload
from nnlib.simulate.model import predict


def averaging(per_worker: float) -> tuple[Workload, Costs]:
    """One round in which W workers take 10 / W + per_worker * W seconds."""
    work = replace(EIGHT, shard_rows=(1000,), train_rows=1000, epochs=1, epochs_per_round=1)
    return work, Costs(train_example=0.01, average_byte=per_worker / 1000)


def test_break_even_and_the_best_number_by_hand() -> None:
    work, costs = averaging(0.1)  # the least of 10 / W + W / 10 is at W = 10
    points = predict(work, costs, SimulatedCluster(slots=100), range(1, 101))
    advice = advise(points[0], points)
    assert (advice.break_even, advice.best) == (2, 10)
    assert advice.best_speedup == pytest.approx(10.1 / 2.0)
    assert advice.is_worth_it

    work, costs = averaging(6.0)  # 16, 17, 21.3, ...
    points = predict(work, costs, SimulatedCluster(slots=100), range(1, 101))
    advice = advise(points[0], points)
    assert (advice.break_even, advice.best, advice.is_worth_it) == (None, 1, False)
    assert advice.text().startswith("do not distribute this")

    work, costs = averaging(4.5)  # 14.5 against 14: faster, but not worth it
    points = predict(work, costs, SimulatedCluster(slots=100), range(1, 101))
    advice = advise(points[0], points)
    assert (advice.break_even, advice.is_worth_it) == (2, False)
    assert advice.text().startswith("do not distribute this")


def test_longer_periods_are_faster_and_the_shortest_cheap_one_is_named() -> None:
    work = replace(EIGHT, epochs=20, epochs_per_round=4)
    costs = Costs(train_example=0.01, job=0.45)  # a round of e epochs trains 2 e seconds on 4 workers
    compared = compare_periods(work, costs, SimulatedCluster(slots=4), 4)
    assert [period.epochs for period in compared] == [1, 2, 4, 5, 10, 20]
    assert [period.seconds for period in compared] == sorted((period.seconds for period in compared), reverse=True)
    assert [period.overhead for period in compared[:3]] == pytest.approx([0.45 / 2.45, 0.45 / 4.45, 0.45 / 8.45])
    cheap = shortest_cheap_period(compared)
    assert cheap is not None and cheap.epochs == 4
    assert shortest_cheap_period(compared[:2]) is None
