"""The average is `numpy.average` in float64, rounded once, in any order of arrival; what is not whole is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.aggregation.average import Average, Partial, Weighting
from nnlib.aggregation.drift import Drift, block_drift
from nnlib.core.errors import DivergedError, MismatchError
from nnlib.core.layout import BLOCK, blocks, slices

FINGERPRINT = "0123456789abcdef"


def partial(worker: int, examples: int, weights: Any, fingerprint: str = FINGERPRINT) -> Partial:
    return Partial(worker, examples, np.asarray(weights), fingerprint)


def averaged(partials: list[Partial], weighting: Weighting = "examples") -> Any:
    average = Average([part.worker for part in partials], FINGERPRINT, weighting)
    for part in partials:
        average.add(part)
    return average.finish()


@st.composite
def plans(draw: st.DrawFn, dtypes: tuple[str, ...] = ("float32", "float64")) -> list[Partial]:
    """The partials of up to 9 workers, numbered with gaps."""
    workers = draw(st.lists(st.integers(0, 50), min_size=1, max_size=9, unique=True))
    size = draw(st.integers(1, 17))
    dtype = draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [
        partial(
            worker,
            draw(st.integers(1, 10**9)),
            (rng.standard_normal(size) * 10.0 ** rng.integers(-20, 20, size)).astype(dtype),
        )
        for worker in workers
    ]


def by_numpy(partials: list[Partial], weighting: Weighting) -> Any:
    """The oracle: sum over workers in their order, in float64, then one rounding."""
    ordered = sorted(partials, key=lambda part: part.worker)
    stacked = np.stack([part.weights.astype(np.float64) for part in ordered])
    weights = [float(part.examples) if weighting == "examples" else 1.0 for part in ordered]
    return np.average(stacked, axis=0, weights=weights).astype(partials[0].weights.dtype)


def test_by_hand() -> None:
    one, two = (
        partial(0, 1, np.array([1.0, -2.0, 0.0], np.float32)),
        partial(1, 3, np.array([5.0, 2.0, 8.0], np.float32)),
    )
    np.testing.assert_array_equal(averaged([one, two]), np.array([4.0, 1.0, 6.0], np.float32))
    np.testing.assert_array_equal(averaged([one, two], "equal"), np.array([3.0, 0.0, 4.0], np.float32))
    assert averaged([one, two]).dtype == np.float32


def test_rounds_once() -> None:
    # In float32, 2**24 + 1 is 2**24: a float32 sum would lose both ones, the float64 sum keeps them.
    parts = [
        partial(worker, 1, np.array([value], np.float32))
        for worker, value in enumerate([2.0**24, 1.0, 1.0, -(2.0**24)])
    ]
    assert averaged(parts)[0] == np.float32(0.5)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(plans(), st.sampled_from(["examples", "equal"]))
def test_equals_numpy_average(partials: list[Partial], weighting: Weighting) -> None:
    if len(partials) == 1:
        return  # comes back unchanged, see below
    # numpy sums along the first axis row by row, as we do; its weights are divided last, as ours are.
    assert averaged(partials, weighting).tobytes() == by_numpy(partials, weighting).tobytes()


@settings(max_examples=150, derandomize=True, deadline=None)
@given(plans(), st.sampled_from(["examples", "equal"]), st.data())
def test_arrival_and_merging_change_no_bit(partials: list[Partial], weighting: Weighting, data: st.DataObject) -> None:
    workers = [part.worker for part in partials]
    expected = averaged(sorted(partials, key=lambda part: part.worker), weighting).tobytes()
    assert averaged(data.draw(st.permutations(partials)), weighting).tobytes() == expected

    averages: list[Average] = []
    remaining = list(data.draw(st.permutations(partials)))
    while remaining:
        average = Average(workers, FINGERPRINT, weighting)
        for _ in range(data.draw(st.integers(0, len(remaining))) if averages else 1):
            average.add(remaining.pop())
        averages.append(average)
    while len(averages) > 1:
        left = averages.pop(data.draw(st.integers(0, len(averages) - 1)))
        right = averages.pop(data.draw(st.integers(0, len(averages) - 1)))
        averages.append(left.merge(right))
    (whole,) = averages
    assert whole.missing == []
    assert whole.finish().tobytes() == expected
    assert whole.examples == sum(part.examples for part in partials)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighting", ["examples", "equal"])
def test_a_single_partial_comes_back_unchanged(dtype: str, weighting: Weighting) -> None:
    # Multiplied by 3 and divided again, many of these float64 values would come back as their neighbours.
    weights = np.random.default_rng(1).standard_normal(1000).astype(dtype)
    weights[:3] = [-0.0, np.finfo(dtype).max / 4, np.finfo(dtype).smallest_subnormal]
    assert averaged([partial(7, 3, weights)], weighting).tobytes() == weights.tobytes()


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.lists(st.integers(1, 10**9), min_size=2, max_size=20),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
)
def test_equal_float32_copies_average_to_themselves(examples: list[int], values: list[float]) -> None:
    weights = np.array(values, np.float32)
    result = averaged([partial(worker, count, weights) for worker, count in enumerate(examples)])
    np.testing.assert_array_equal(result, weights)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(DivergedError, match="weight 2 is") as caught:
        Average([4], FINGERPRINT).add(partial(4, 1, np.array([0, 0, bad, bad], np.float32)))
    assert caught.value.where["worker"] == 4


@pytest.mark.parametrize("examples", [0, -1, 2**53 + 1, pytest.param(10**400, id="huge")])
def test_refuses_impossible_examples(examples: int) -> None:
    with pytest.raises(MismatchError, match="examples"):
        Average([0], FINGERPRINT).add(partial(0, examples, np.zeros(2)))


def test_refuses_what_does_not_belong() -> None:
    average = Average([0, 1, 3], FINGERPRINT)
    average.add(partial(1, 1, np.zeros(2)))
    refused = {
        "layout": partial(0, 1, np.zeros(2), "another"),
        "not in the plan": partial(2, 1, np.zeros(2)),
        "same worker": partial(1, 1, np.ones(2)),
        r"shape and dtype \(\(3,\)": partial(0, 1, np.zeros(3)),
        "float32": partial(0, 1, np.zeros(2, np.float32)),
        r"shape \(1, 2\)": partial(0, 1, np.zeros((1, 2))),
        "int64": partial(0, 1, np.zeros(2, np.int64)),
    }
    for text, part in refused.items():
        with pytest.raises(MismatchError, match=text) as caught:
            average.add(part)
        assert caught.value.where["worker"] == part.worker
    average.add(partial(0, 1, np.ones(2)))
    with pytest.raises(MismatchError, match="same worker"):  # a twin of one that is summed already
        average.add(partial(0, 1, np.ones(2)))
    assert average.missing == [3]
    with pytest.raises(MismatchError, match="no partial from worker 3"):
        average.finish()
    average.add(partial(3, 2, np.full(2, 4.0)))  # what was refused left no trace
    np.testing.assert_array_equal(average.finish(), [2.25, 2.25])


@pytest.mark.parametrize("workers", [[], [1, 1]])
def test_refuses_impossible_plans(workers: list[int]) -> None:
    with pytest.raises(ValueError, match="distinct"):
        Average(workers, FINGERPRINT)


def halves(left: dict[int, Any], right: dict[int, Any]) -> tuple[Average, Average]:
    both = []
    for side in (left, right):
        average = Average([0, 1, 2], FINGERPRINT)
        for worker, weights in side.items():
            average.add(partial(worker, 1, weights))
        both.append(average)
    return both[0], both[1]


@pytest.mark.parametrize(
    ("left", "right"),
    [((0,), (0,)), ((0, 1), (1,)), ((1,), (0, 1)), ((2,), (2,)), ((1, 2), (0, 1)), ((0, 2), (1, 2))],
)
def test_merging_refuses_twins(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    ours, theirs = halves(dict.fromkeys(left, np.zeros(2)), dict.fromkeys(right, np.ones(2)))
    with pytest.raises(MismatchError, match="same worker") as caught:
        ours.merge(theirs)
    assert caught.value.where["worker"] == max(set(left) & set(right))


@pytest.mark.parametrize("other", [np.zeros(1), np.zeros(3), np.zeros(2, np.float32)])
@pytest.mark.parametrize("first", [0, 1])
def test_merging_refuses_other_shapes(other: Any, first: int) -> None:
    ours, theirs = halves({first: np.zeros(2)}, {1 - first: other})
    with pytest.raises(MismatchError, match="shape and dtype"):
        ours.merge(theirs)


def test_merging_refuses_other_plans() -> None:
    average = Average([0, 1], FINGERPRINT)
    for other in (Average([0, 2], FINGERPRINT), Average([0, 1], "x"), Average([0, 1], FINGERPRINT, "equal")):
        with pytest.raises(MismatchError, match="different plans"):
            average.merge(other)


def test_drift_by_hand() -> None:
    drift = block_drift(np.array([3, 0], np.float32), np.array([1, 1], np.float32), np.array([0, 2], np.float32))
    # apart (2, -1); own step (3, -2); mean's step (1, -1)
    assert drift == Drift(distance=5.0, step=13.0, mean_step=2.0, dot=5.0, norm=2.0)


def test_drift_equals_numpy_and_knows_no_slices() -> None:
    size = 2 * BLOCK + 12_345
    rng = np.random.default_rng(3)
    own, mean, start = (rng.standard_normal(size).astype(np.float32) for _ in range(3))

    def over(parts: list[slice]) -> list[float]:
        """As reducers do: every slice cut into blocks from its own beginning, all blocks' sums added exactly."""
        sums = []
        for part in parts:
            pieces = [array[part] for array in (own, mean, start)]
            for block in blocks(part.stop - part.start):
                drift = block_drift(*(piece[block] for piece in pieces))
                sums.append([drift.distance, drift.step, drift.mean_step, drift.dot, drift.norm])
        return [math.fsum(column) for column in zip(*sums, strict=True)]

    whole = over(slices(size, size))
    for elements in (1, BLOCK, BLOCK + 1, 2 * BLOCK, 10 * BLOCK):
        assert over(slices(size, elements)) == whole
    a, b, c = own.astype(np.float64), mean.astype(np.float64), start.astype(np.float64)
    expected = [(a - b) @ (a - b), (a - c) @ (a - c), (b - c) @ (b - c), (a - c) @ (b - c), b @ b]
    np.testing.assert_allclose(whole, expected, rtol=1e-10)
