"""The cost model against cases worked by hand, its fit against known costs, the command end to end."""

from __future__ import annotations

import heapq
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.__main__ import main
from nnlib.core.errors import UsageError
from nnlib.core.seeds import Purpose, generator
from nnlib.data.synthetic import SynthOptions, synthesize
from nnlib.simulate.advice import advise, compare_periods, shortest_cheap_period
from nnlib.simulate.costs import Cluster, Costs, Workload
from nnlib.simulate.fit import Measured, fit_costs
from nnlib.simulate.model import predict, work_seconds, worker_counts
from nnlib.simulate.schedule import abort_probability, draw_lengthening, makespan

EIGHT = Workload(shard_rows=(125,) * 8, train_rows=800, trials=1, epochs=6, epochs_per_round=2, model_bytes=1000)
TRAIN_ONLY = Costs(train_example=0.01)
ALL_COSTS = Costs(
    train_example=0.01,
    visit_row=0.001,
    startup=3.0,
    job=0.5,
    dispatch=0.05,
    task=0.25,
    commit=0.125,
    encode_byte=1e-5,
    average_byte=2e-5,
    contention=1.5,
    slots=2,
)


def seconds(costs: Costs, cluster: Cluster, *workers: int, work: Workload = EIGHT) -> list[float]:
    return [point.seconds for point in predict(work, costs, cluster, workers)]


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


def test_without_overhead_speed_up_is_linear() -> None:
    one, two, four, eight = seconds(TRAIN_ONLY, Cluster(slots=8), 1, 2, 4, 8)
    assert one == pytest.approx(6 * 800 * 0.01)
    assert [one / two, one / four, one / eight] == pytest.approx([2.0, 4.0, 8.0])


def test_on_one_slot_dividing_gains_nothing() -> None:
    one, four, eight = seconds(TRAIN_ONLY, Cluster(slots=1), 1, 4, 8)
    assert four == eight == pytest.approx(one)


def test_a_whole_run_by_hand() -> None:
    """Four workers on two slots, three rounds of two epochs: two waves of tasks, one reducer."""
    visit = 0.25 + 1.5 * 250 * 0.001
    task = visit + 1.5 * 2 * 200 * 0.01 + 1000 * 1e-5
    reduce = 0.25 + 4 * 1000 * 2e-5
    jobs = 0.5 + 5 * 0.05
    expected = 3.0 + 3 * (2 * task + reduce + jobs + 0.125) + (2 * visit + 0.25 + jobs)
    assert seconds(ALL_COSTS, Cluster(slots=2), 4) == [pytest.approx(expected)]


def test_the_network_by_hand() -> None:
    """Model out to 4 workers, their partials (4/3 in base64) to one reducer, the average back, at 1000 bytes a second;
    three messages' latency."""
    (point,) = predict(EIGHT, TRAIN_ONLY, Cluster(slots=8, bandwidth=1000.0, latency=0.5), [4])
    assert point.transfer == pytest.approx(1.5 + 4 + 4 * 4 / 3 + 4 / 3)


def test_workers_get_whole_shards_or_equal_parts() -> None:
    uneven = replace(EIGHT, shard_rows=(300, 200, 100))
    assert uneven.row_fractions(2).tolist() == [400 / 600, 200 / 600]
    assert uneven.row_fractions(5).tolist() == [0.2] * 5


def test_batches_count_whole_and_shared_streams_are_not_divided() -> None:
    assert replace(EIGHT, batch_size=64).trained_rows(8).tolist() == [128.0] * 8
    shared = replace(EIGHT, shared=True, trials=3)
    assert shared.trained_rows(4).tolist() == [2400.0] * 4
    one, four = seconds(TRAIN_ONLY, Cluster(slots=4), 1, 4, work=shared)
    assert one == four


def test_failures_add_the_expected_retries() -> None:
    """An attempt dies with p = 0.5 half way on average, at most three times: 1 + (1/2 + 1/4 + 1/8) / 2."""
    factor = draw_lengthening(Cluster(failures=0.5), 20_000, 10, generator(0, Purpose.SIMULATE))
    assert factor.mean() == pytest.approx(1 + (0.5 + 0.25 + 0.125) / 2, abs=5e-3)
    assert factor.min() == 1.0
    assert draw_lengthening(Cluster(stragglers=0.0), 4, 3, generator(0, Purpose.SIMULATE)).tolist() == [[1.0] * 3] * 4


def test_the_chance_to_fail_for_good_by_hand() -> None:
    assert abort_probability(Cluster(failures=0.5, retries=1), 2) == pytest.approx(1 - 0.75**2)
    assert abort_probability(Cluster(), 1000) == 0.0


def test_stragglers_are_lognormal_with_median_one() -> None:
    factor = draw_lengthening(Cluster(stragglers=0.5), 20_000, 10, generator(1, Purpose.SIMULATE))
    assert np.median(factor) == pytest.approx(1.0, abs=0.01)
    assert np.log(factor).std() == pytest.approx(0.5, abs=0.01)


def test_the_seed_decides_and_other_numbers_of_workers_do_not() -> None:
    cluster = Cluster(slots=4, stragglers=0.3, failures=0.1, seed=7)
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
    cluster = Cluster(slots=slots, stragglers=0.4, failures=0.2)
    raised = replace(ALL_COSTS, **{name: getattr(ALL_COSTS, name) * (1 + more)})
    assert seconds(raised, cluster, workers)[0] >= seconds(ALL_COSTS, cluster, workers)[0] * (1 - 1e-12)


def averaging(per_worker: float) -> tuple[Workload, Costs]:
    """One round in which W workers take 10 / W + per_worker * W seconds."""
    work = replace(EIGHT, shard_rows=(1000,), train_rows=1000, epochs=1, epochs_per_round=1)
    return work, Costs(train_example=0.01, average_byte=per_worker / 1000)


def test_break_even_and_the_best_number_by_hand() -> None:
    work, costs = averaging(0.1)  # the least of 10 / W + W / 10 is at W = 10
    points = predict(work, costs, Cluster(slots=100), range(1, 101))
    advice = advise(points[0], points)
    assert (advice.break_even, advice.best) == (2, 10)
    assert advice.best_speedup == pytest.approx(10.1 / 2.0)
    assert advice.is_worth_it

    work, costs = averaging(6.0)  # 16, 17, 21.3, ...
    points = predict(work, costs, Cluster(slots=100), range(1, 101))
    advice = advise(points[0], points)
    assert (advice.break_even, advice.best, advice.is_worth_it) == (None, 1, False)
    assert advice.text().startswith("do not distribute this")

    work, costs = averaging(4.5)  # 14.5 against 14: faster, but not worth it
    points = predict(work, costs, Cluster(slots=100), range(1, 101))
    advice = advise(points[0], points)
    assert (advice.break_even, advice.is_worth_it) == (2, False)
    assert advice.text().startswith("do not distribute this")


def test_longer_periods_are_faster_and_the_shortest_cheap_one_is_named() -> None:
    work = replace(EIGHT, epochs=20, epochs_per_round=4)
    costs = Costs(train_example=0.01, job=0.45)  # a round of e epochs trains 2 e seconds on 4 workers
    found = compare_periods(work, costs, Cluster(slots=4), 4)
    assert [period.epochs for period in found] == [1, 2, 4, 5, 10, 20]
    assert [period.seconds for period in found] == sorted((period.seconds for period in found), reverse=True)
    assert [period.overhead for period in found[:3]] == pytest.approx([0.45 / 2.45, 0.45 / 4.45, 0.45 / 8.45])
    cheap = shortest_cheap_period(found)
    assert cheap is not None and cheap.epochs == 4
    assert shortest_cheap_period(found[:2]) is None


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_the_fit_finds_the_costs_that_made_the_measurements(slots: int, shared: bool) -> None:
    truth = replace(ALL_COSTS, slots=slots, contention=1.5 if slots > 1 else 1.0)
    short = replace(EIGHT, epochs=8, epochs_per_round=2, shared=shared)
    points = []
    for workers in (1, 6):
        (point,) = predict(short, truth, Cluster(slots), [workers])
        slower = truth.slowdown(min(workers, slots))
        visit = slower * truth.visit_row * float(short.visited_rows(workers).sum())
        both = slower * float(work_seconds(short, truth, workers).sum())
        points.append(Measured(short, workers, point.seconds, point.round_seconds, both - visit, visit))
    known = replace(
        truth, train_example=0.0, visit_row=0.0, startup=0.0, job=0.0, dispatch=0.0, contention=1.0, slots=1
    )
    found = fit_costs(points[0], points[1], slots, known)
    for name in ("train_example", "visit_row", "startup", "job", "dispatch", "contention"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=1e-6), name
    held_out = predict(EIGHT, truth, Cluster(slots), [2, 4, 8])
    for expected, point in zip(held_out, predict(EIGHT, found, Cluster(slots), [2, 4, 8]), strict=True):
        assert point.seconds == pytest.approx(expected.seconds, rel=1e-6)


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


def test_the_command_predicts_checks_and_advises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthesize(str(tmp_path / "data"), SynthOptions(kind="blobs", rows=400, features=5, classes=3, shards=4))
    config = tmp_path / "tiny.yaml"
    config.write_text(
        f"name: tiny\ndata: {{path: {tmp_path / 'data'}}}\nmodel: {{hidden: [4]}}\n"
        "train: {epochs: 3, epochs_per_round: 1}\n"
    )
    arguments = ["simulate", str(config), "--seconds", "1", "--workers", "1..64", "--stragglers", "0.2"]
    assert main([*arguments, "--check", "1,2", "-o", str(tmp_path / "check"), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert [point["workers"] for point in result["points"]] == list(range(1, 65))
    assert result["calibration"]["workers"] == [1, 3]
    assert [(point["workers"], point["held_out"]) for point in result["check"]] == [(1, False), (2, True)]
    assert all(point["measured_seconds"] > 0 for point in result["check"])
    assert result["distribute"] is False, "one process gains nothing by dividing the data"
    assert "do not distribute this" in captured.err
    assert [period["epochs"] for period in result["epochs_per_round"]["periods"]] == [1, 2, 3]


def test_wrong_usage_is_told_before_anything_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text("data: {path: nowhere}\n")
    assert main(["simulate", str(config), "--workers", "many"]) == 2
    assert "--workers wants numbers" in capsys.readouterr().err
    synthesize(str(tmp_path / "data"), SynthOptions(kind="blobs", rows=40, features=5, classes=3, shards=4))
    config.write_text(f"data: {{path: {tmp_path / 'data'}}}\n")
    for option in ("--check", "--calibrate-on"):
        assert main(["simulate", str(config), option, "5"]) == 2
        captured = capsys.readouterr()
        assert "4 shards" in captured.err and "calibrating" not in captured.err
