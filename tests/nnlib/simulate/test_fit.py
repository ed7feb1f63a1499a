"""The fit against known costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cost_cases import ALL_COSTS, EIGHT

from nnlib.simulate.costs import SimulatedCluster
from nnlib.simulate.fit import Measured, fit_costs
from nnlib.simulate.model import predict, work_seconds


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_the_fit_finds_the_costs_that_made_the_measurements(slots: int, shared: bool) -> None:
    truth = replace(ALL_COSTS, slots=slots, contention=1.5 if slots > 1 else 1.0)
    short = replace(EIGHT, epochs=8, epochs_per_round=2, shared=shared)
    points = []
    for workers in (1, 6):
        (point,) = predict(short, truth, SimulatedCluster(slots), [workers])
        slower = truth.slowdown(min(workers, slots))
        visit = slower * truth.visit_row * float(short.visited_rows(workers).sum())
        both = slower * float(work_seconds(short, truth, workers).sum())
        points.append(Measured(short, workers, point.seconds, point.round_seconds, both - visit, visit))
    known = replace(
        truth, train_example=0.0, visit_row=0.0, startup=0.0, job=0.0, dispatch=0.0, contention=1.0, slots=1
    )
    fitted = fit_costs(points[0], points[1], slots, known)
    for name in ("train_example", "visit_row", "startup", "job", "dispatch", "contention"):
        assert getattr(fitted, name) == pytest.approx(getattr(truth, name), rel=1e-6), name
    held_out = predict(EIGHT, truth, SimulatedCluster(slots), [2, 4, 8])
    for expected, point in zip(held_out, predict(EIGHT, fitted, SimulatedCluster(slots), [2, 4, 8]), strict=True):
        assert point.seconds == pytest.approx(expected.seconds, rel=1e-6)
