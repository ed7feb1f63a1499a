"""The cost model against cases worked by hand."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from cost_cases import ALL_COSTS, EIGHT, TRAIN_ONLY, seconds
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.core.errors import UsageError
from nnlib.simulate.costs import Costs, SimulatedCluster
from nnlib.simulate.model import predict, worker_counts


def test_without_overhead_speed_up_is_linear() -> None:
    one, two, four, eight = seconds(TRAIN_ONLY, SimulatedCluster(slots=8), 1, 2, 4, 8)
    assert one == pytest.approx(6 * 800 * 0.01)
    assert [one / two, one / four, one / eight] == pytest.approx([2.0, 4.0, 8.0])


def test_on_one_slot_dividing_gains_nothing() -> None:
    one, four, eight = seconds(TRAIN_ONLY, SimulatedCluster(slots=1), 1, 4, 8)
    assert four == eight == pytest.approx(one)


def test_a_whole_run_by_hand() -> None:
    """Four workers on two slots, three rounds of two epochs: two waves of tasks, one reducer."""
    visit = 0.25 + 1.5 * 250 * 0.001
    task = visit + 1.5 * 2 * 200 * 0.01 + 1000 * 1e-5
    reduce = 0.25 + 4 * 1000 * 2e-5
    jobs = 0.5 + 5 * 0.05
    expected = 3.0 + 3 * (2 * task + reduce + jobs + 0.125) + (2 * visit + 0.25 + jobs)
    assert seconds(ALL_COSTS, SimulatedCluster(slots=2), 4) == [pytest.approx(expected)]


def test_the_network_by_hand() -> None:
    """Model out to 4 workers, their partials (4/3 in base64) to one reducer, the average back, at 1000 bytes a second;
    three messages' latency."""
    (point,) = predict(EIGHT, TRAIN_ONLY, SimulatedCluster(slots=8, bandwidth=1000.0, latency=0.5), [4])
    assert point.transfer == pytest.approx(1.5 + 4 + 4 * 4 / 3 + 4 / 3)


def test_batches_count_whole_and_shared_streams_are_not_divided() -> None:
    assert replace(EIGHT, batch_size=64).trained_rows(8).tolist() == [128.0] * 8
    shared = replace(EIGHT, shared=True, trials=3)
    assert shared.trained_rows(4).tolist() == [2400.0] * 4
    one, four = seconds(TRAIN_ONLY, SimulatedCluster(slots=4), 1, 4, work=shared)
    assert one == four


def test_the_seed_decides_and_other_numbers_of_workers_do_not() -> None:
    cluster = SimulatedCluster(slots=4, stragglers=0.3, failures=0.1, seed=7)
    few, many = predict(EIGHT, ALL_COSTS, cluster, [8]), predict(EIGHT, ALL_COSTS, cluster, [1, 2, 3, 8])
    assert few[0] == many[-1]
    assert few[0].spread > 0.0
    assert few != predict(EIGHT, ALL_COSTS, replace(cluster, seed=8), [8])


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.sampled_from([field.name for field in fields(Costs) if field.name not in ("contention", "slots")]),
    st.floats(0.0, 2.0),
    st.integers(1, 40),
    st.integers(1, 9),
)
def test_more_overhead_never_makes_a_run_faster(name: str, more: float, workers: int, slots: int) -> None:
    cluster = SimulatedCluster(slots=slots, stragglers=0.4, failures=0.2)
    raised = replace(ALL_COSTS, **{name: getattr(ALL_COSTS, name) * (1 + more)})
    assert seconds(raised, cluster, workers)[0] >= seconds(ALL_COSTS, cluster, workers)[0] * (1 - 1e-12)


def test_ranges_of_workers() -> None:
    assert worker_counts("8,1,2") == [1, 2, 8]
    assert worker_counts("3..6") == [3, 4, 5, 6]
    long = worker_counts("1..1024")
    assert long[:64] == list(range(1, 65))
    assert {128, 256, 512, 1024} <= set(long)
    assert len(long) == 64 + 4 * 16
    for wrong in ("", "0", "a", "1..", "5..2", "1..1000000"):
        with pytest.raises(UsageError, match="--workers"):
            worker_counts(wrong)
