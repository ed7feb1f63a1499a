"""Averages of partials that hold parts of a vector."""

from __future__ import annotations

import numpy as np
import pytest

from nnlib.aggregation.average import Average, Partial
from nnlib.aggregation.masked_average import MaskedAverage
from nnlib.core.entries import Segment
from nnlib.core.errors import DivergedError, MismatchError

START = np.array([9.0, 9.0, 9.0, 9.0], np.float32)
HELD = {0: np.array([1, 1, 0, 0], bool), 1: np.array([0, 1, 1, 0], bool)}


def partial(worker: int, *values: float, examples: int = 1) -> Partial:
    return Partial(worker, examples, np.array(values, np.float32), "layout")


def masked(held: dict[int, np.ndarray] | None = None, **options: object) -> MaskedAverage:
    held = HELD if held is None else held
    return MaskedAverage(sorted(held), "layout", start=START, held=held, **options)  # type: ignore[arg-type]


def test_each_element_is_the_mean_of_those_who_hold_it() -> None:
    average = masked()
    average.add(partial(1, 50.0, 4.0, 5.0, 50.0, examples=3))  # what it does not hold does not count
    average.add(partial(0, 1.0, 2.0, 50.0, 50.0, examples=1))
    assert average.finish().tolist() == [1.0, (2.0 + 3 * 4.0) / 4, 5.0, 9.0]
    assert average.examples == 4


def test_equal_weights() -> None:
    average = masked(weighting="equal")
    average.add(partial(0, 1.0, 2.0, 0.0, 0.0, examples=1))
    average.add(partial(1, 0.0, 4.0, 5.0, 0.0, examples=3))
    assert average.finish().tolist() == [1.0, 3.0, 5.0, 9.0]


def test_where_all_hold_all_it_is_the_average() -> None:
    rng = np.random.default_rng(0)
    held = {worker: np.ones(4, bool) for worker in range(3)}
    average, plain = masked(held), Average(range(3), "layout")
    for worker in range(3):
        part = Partial(worker, 7 + worker, rng.normal(size=4).astype(np.float32), "layout")
        average.add(part)
        plain.add(part)
    assert average.finish().tobytes() == plain.finish().tobytes()


def test_what_one_worker_alone_holds_keeps_its_bits() -> None:
    values = np.array([0.1, 1 / 3, 1e-40, -0.0], np.float32)
    average = masked({0: np.ones(4, bool)})
    average.add(Partial(0, 12345, values, "layout"))
    assert average.finish().tobytes() == values.tobytes()


def test_what_must_not_enter() -> None:
    average = masked()
    with pytest.raises(DivergedError):
        average.add(partial(0, 1.0, np.nan, 0.0, 0.0))
    average.add(partial(0, 1.0, 2.0, 0.0, 0.0))
    with pytest.raises(MismatchError, match="no partial from worker 1"):
        average.finish()
    with pytest.raises(TypeError):
        average.merge(masked())
    with pytest.raises(ValueError, match="mean"):
        masked(segment=Segment("int64", "max", ()))
