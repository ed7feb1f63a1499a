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


def test_cosine_of_one_epoch_and_beyond_the_last() -> None:
    cosine = schedule_section(kind="cosine", final=0.25)
    assert learning_rate(train_section(lr=8.0, epochs=1, schedule=cosine), 0) == 8.0
    assert learning_rate(train_section(lr=8.0, epochs=3, schedule=cosine), 7) == pytest.approx(2.0)


def test_warmup_longer_than_training() -> None:
    train = train_section(lr=8.0, epochs=2, schedule=schedule_section(kind="cosine", warmup_epochs=7))
    assert [learning_rate(train, epoch) for epoch in range(2)] == [1.0, 2.0]
