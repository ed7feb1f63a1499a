"""Learning-rate schedules against tables worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nnlib.config.kinds import SCHEDULES
from nnlib.config.training import schedule_section, train_section
from nnlib.optim import learning_rate

TABLES: list[tuple[dict[str, Any], list[float]]] = [
    ({"kind": "constant"}, [8, 8, 8, 8, 8]),
    ({"kind": "constant", "warmup_epochs": 3}, [2, 4, 6, 8, 8]),
    ({"kind": "step", "step_epochs": 2, "gamma": 0.5}, [8, 8, 4, 4, 2]),
    ({"kind": "step", "step_epochs": 1, "gamma": 0.5, "warmup_epochs": 1}, [4, 8, 4, 2, 1]),
    ({"kind": "exponential", "gamma": 0.5}, [8, 4, 2, 1, 0.5]),
    ({"kind": "cosine"}, [8, 4 + 4 * math.cos(math.pi / 4), 4, 4 - 4 * math.cos(math.pi / 4), 0]),
    ({"kind": "cosine", "final": 0.5, "warmup_epochs": 2}, [8 / 3, 16 / 3, 8, 6, 4]),
    ({"kind": "inverse", "gamma": 1.0}, [8, 4, 8 / 3, 2, 8 / 5]),
]


@pytest.mark.parametrize(("schedule", "expected"), TABLES)
def test_table(schedule: dict[str, Any], expected: list[float]) -> None:
    train = train_section(lr=8.0, epochs=5, schedule=schedule_section(**schedule))
    walked = [learning_rate(train, epoch) for epoch in range(5)]
    assert walked == pytest.approx(expected, rel=1e-12, abs=1e-12)
    jumped = [learning_rate(train, epoch) for epoch in (4, 0, 3, 1, 2)]
    assert jumped == [walked[epoch] for epoch in (4, 0, 3, 1, 2)]


def test_every_kind_has_its_function_and_its_table() -> None:
    assert set(SCHEDULES) == {table["kind"] for table, _ in TABLES}
    assert all(callable(kind.load()) for kind in SCHEDULES.values())


STEPS: list[tuple[dict[str, Any], list[float]]] = [
    ({"kind": "constant"}, [8] * 6),
    ({"kind": "constant", "warmup_epochs": 1}, [2, 4, 6, 8, 8, 8]),
    ({"kind": "constant", "warmup_steps": 1}, [4, 8, 8, 8, 8, 8]),
    ({"kind": "step", "step_epochs": 1, "gamma": 0.5}, [8, 8, 8, 4, 4, 4]),
    ({"kind": "exponential", "gamma": 0.125}, [8, 4, 2, 1, 0.5, 0.25]),
    ({"kind": "cosine"}, [4 + 4 * math.cos(math.pi * step / 5) for step in range(6)]),
    ({"kind": "cosine", "final": 0.5, "warmup_steps": 3}, [2, 4, 6, 8, 6, 4]),
    ({"kind": "inverse", "gamma": 1.0}, [8, 6, 4.8, 4, 24 / 7, 3]),
]
"""Two epochs of three steps."""


@pytest.mark.parametrize(("schedule", "expected"), STEPS)
def test_table_by_step(schedule: dict[str, Any], expected: list[float]) -> None:
    train = train_section(lr=8.0, epochs=2, schedule=schedule_section(by="step", **schedule))
    walked = [learning_rate(train, epoch, step, 3) for epoch in range(2) for step in range(3)]
    assert walked == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert [learning_rate(train, at // 3, at % 3, 3) for at in (5, 0, 3)] == [walked[at] for at in (5, 0, 3)]


@pytest.mark.parametrize(("schedule", "_"), TABLES)
def test_by_epoch_all_steps_have_the_rate_of_the_epoch(schedule: dict[str, Any], _: Any) -> None:
    train = train_section(lr=8.0, epochs=5, schedule=schedule_section(**schedule))
    for epoch in range(5):
        assert {learning_rate(train, epoch, step, 7) for step in range(7)} == {learning_rate(train, epoch)}


@pytest.mark.parametrize("kind", [kind for kind in SCHEDULES if kind != "cosine"])
def test_workers_with_more_steps_have_the_same_rate_when_an_epoch_begins(kind: str) -> None:
    train = train_section(lr=8.0, epochs=4, schedule=schedule_section(kind=kind, by="step"))
    for epoch in range(4):
        assert len({learning_rate(train, epoch, 0, steps) for steps in (1, 10, 1000)}) == 1


def test_a_cosine_by_step_ends_with_the_last_step_of_each_worker() -> None:
    train = train_section(lr=8.0, epochs=4, schedule=schedule_section(kind="cosine", by="step", final=0.25))
    for steps in (1, 10, 1000):
        assert learning_rate(train, 0, 0, steps) == 8.0
        assert learning_rate(train, 3, steps - 1, steps) == pytest.approx(2.0, rel=1e-12)


def test_cosine_of_one_epoch_and_beyond_the_last() -> None:
    cosine = schedule_section(kind="cosine", final=0.25)
    assert learning_rate(train_section(lr=8.0, epochs=1, schedule=cosine), 0) == 8.0
    assert learning_rate(train_section(lr=8.0, epochs=3, schedule=cosine), 7) == pytest.approx(2.0)


def test_warmup_longer_than_training() -> None:
    train = train_section(lr=8.0, epochs=2, schedule=schedule_section(kind="cosine", warmup_epochs=7))
    assert [learning_rate(train, epoch) for epoch in range(2)] == [1.0, 2.0]
