"""Schedules and random lengthening of tasks, worked by hand and against a queue of free slots."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.core.seeds import Purpose, generator
from nnlib.simulate.costs import SimulatedCluster
from nnlib.simulate.schedule import abort_probability, draw_lengthening, makespan


def test_one_slot_takes_the_sum_and_enough_slots_the_longest() -> None:
    durations = np.array([[3.0, 1.0, 2.0], [5.0, 5.0, 0.5]])
    assert makespan(durations, 1).tolist() == [6.0, 10.5]
    assert makespan(durations, 3).tolist() == makespan(durations, 99).tolist() == [3.0, 5.0]


def test_tasks_wait_for_the_slot_that_is_free_first() -> None:
    assert makespan(np.array([[3.0, 3.0, 2.0, 2.0, 2.0]]), 2).tolist() == [7.0]
    assert makespan(np.array([[4.0, 1.0, 1.0, 1.0, 1.0]]), 2).tolist() == [4.0]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 9))
def test_the_schedule_is_that_of_a_queue_of_free_slots(tasks: list[int], slots: int) -> None:
    free = [0.0] * slots
    for task in tasks:
        heapq.heapreplace(free, free[0] + task)
    assert makespan(np.array([tasks], float), slots).tolist() == [max(free)]


def test_failures_add_the_expected_retries() -> None:
    """An attempt dies with p = 0.5 half way on average, at most three times: 1 + (1/2 + 1/4 + 1/8) / 2."""
    factor = draw_lengthening(SimulatedCluster(failures=0.5), 20_000, 10, generator(0, Purpose.SIMULATE))
    assert factor.mean() == pytest.approx(1 + (0.5 + 0.25 + 0.125) / 2, abs=5e-3)
    assert factor.min() == 1.0
    assert (
        draw_lengthening(SimulatedCluster(stragglers=0.0), 4, 3, generator(0, Purpose.SIMULATE)).tolist()
        == [[1.0] * 3] * 4
    )


def test_the_chance_to_fail_for_good_by_hand() -> None:
    assert abort_probability(SimulatedCluster(failures=0.5, retries=1), 2) == pytest.approx(1 - 0.75**2)
    assert abort_probability(SimulatedCluster(), 1000) == 0.0


def test_stragglers_are_lognormal_with_median_one() -> None:
    factor = draw_lengthening(SimulatedCluster(stragglers=0.5), 20_000, 10, generator(1, Purpose.SIMULATE))
    assert np.median(factor) == pytest.approx(1.0, abs=0.01)
    assert np.log(factor).std() == pytest.approx(0.5, abs=0.01)
