"""The all-reduce: the bits of `Average`, the same at every worker, whatever the cut; one error for all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_group import MemoryGroup

from nnlib.aggregation.average import Average, Partial, Weighting
from nnlib.collective.allreduce import Operand, Reduced, all_reduce
from nnlib.collective.communicator import Communicator
from nnlib.collective.partition import FEW_BLOCKS, MESSAGE, messages, ranges
from nnlib.collective.solo import Solo
from nnlib.core.arrays import Vector
from nnlib.core.entries import buffer, parameter
from nnlib.core.errors import DivergedError, MismatchError, NnjobsError
from nnlib.core.layout import BLOCK, Layout


def together(workers: int, work: Callable[[Communicator], Any]) -> list[Any]:
    """What ``work`` gives, or raises, on each worker of a group."""
    found: list[Any] = [None] * workers

    def run(communicator: Communicator) -> None:
        try:
            found[communicator.worker] = work(communicator)
        except NnjobsError as error:
            found[communicator.worker] = error

    group = MemoryGroup(workers, timeout_seconds=20.0).communicators()
    threads = [threading.Thread(target=run, args=(each,)) for each in group]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def reduced(partials: Sequence[Sequence[Partial]], **options: Any) -> list[Reduced]:
    """``partials[worker][trial]`` all-reduced."""

    def work(each: Communicator) -> Reduced:
        return all_reduce(each, [Operand(partial, **options) for partial in partials[each.worker]])

    found = together(len(partials), work)
    for each in found:
        if isinstance(each, Exception):
            raise each
    return found


def oracle(partials: Sequence[Partial], weighting: Weighting) -> Vector | None:
    counted = [each for each in partials if each.examples]
    if not counted:
        return None
    average = Average([each.worker for each in counted], counted[0].fingerprint, weighting)
    for each in counted:
        average.add(each)
    return average.finish()


@pytest.mark.filterwarnings("error")
@settings(max_examples=40, deadline=None)
@given(
    workers=st.integers(1, 6),
    sizes=st.lists(st.sampled_from([0, 1, 3, 1000, BLOCK, BLOCK + 1, 3 * BLOCK + 7]), min_size=1, max_size=4),
    dtype=st.sampled_from([np.float32, np.float64]),
    weighting=st.sampled_from(["examples", "equal"]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_bits_are_those_of_the_average(
    workers: int, sizes: list[int], dtype: Any, weighting: Weighting, seed: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(seed)
    examples = data.draw(
        st.lists(
            st.sampled_from([0, 1, 7, 3500, 2**52 + 1]), min_size=workers * len(sizes), max_size=workers * len(sizes)
        )
    )
    partials = [
        [
            Partial(
                worker,
                examples[worker * len(sizes) + trial],
                (random.standard_normal(size) * 10.0 ** random.integers(-3, 4)).astype(dtype),
                f"layout{trial}",
            )
            for trial, size in enumerate(sizes)
        ]
        for worker in range(workers)
    ]
    kept = [[each.weights.copy() for each in own] for own in partials]
    found = reduced(partials, weighting=weighting)
    for trial in range(len(sizes)):
        expected = oracle([own[trial] for own in partials], weighting)
        for each in found:
            assert each.examples[trial] == [own[trial].examples for own in partials]
            vector = each.vectors[trial]
            if expected is None:
                assert vector is None
            else:
                assert vector is not None
                assert (vector.dtype, vector.tobytes()) == (expected.dtype, expected.tobytes())
    for own, before in zip(partials, kept, strict=True):
        for partial, weights in zip(own, before, strict=True):
            assert partial.weights.tobytes() == weights.tobytes()


def test_by_hand() -> None:
    """(1 * 1 + 3 * 5) / 4 = 4 and (1 * 2 + 3 * -2) / 4 = -1."""
    partials = [[Partial(0, 1, np.array([1.0, 2.0]), "a")], [Partial(1, 3, np.array([5.0, -2.0]), "a")]]
    for each in reduced(partials):
        assert each.vectors[0] is not None
        assert each.vectors[0].tolist() == [4.0, -1.0]


def test_the_sum_runs_in_worker_order() -> None:
    """Float64 sums depend on their order: 1e16 + 1 - 1e16 is 0, but 1e16 - 1e16 + 1 is 1."""
    values = [1e16, 1.0, -1e16]
    for order, expected in (([0, 1, 2], 0.0), ([0, 2, 1], 1.0 / 3.0)):
        partials = [[Partial(worker, 1, np.array([values[place]]), "a")] for worker, place in enumerate(order)]
        for each in reduced(partials):
            assert each.vectors[0] is not None
            assert each.vectors[0].tolist() == [expected]


def test_records_reach_all_and_partials_stay_what_they_were() -> None:
    partials = [Partial(worker, 1, np.full(3, worker, np.float32), "a") for worker in range(3)]

    def work(communicator: Communicator) -> Reduced:
        operand = Operand(partials[communicator.worker])
        return all_reduce(communicator, [operand], record=b"from %d" % communicator.worker)

    for worker, each in enumerate(together(3, work)):
        assert each.records == [b"from 0", b"from 1", b"from 2"]
        assert each.vectors[0].tolist() == [1.0, 1.0, 1.0]
        assert partials[worker].weights.tolist() == [worker] * 3


def test_every_vector_has_its_own_weighting() -> None:
    """Of 1 and 5 with 1 and 3 examples the mean is 4, the equal mean 3."""
    weightings: list[Weighting] = ["examples", "equal"]

    def work(communicator: Communicator) -> Reduced:
        worker = communicator.worker
        partial = Partial(worker, [1, 3][worker], np.array([[1.0], [5.0]][worker]), "a")
        return all_reduce(communicator, [Operand(partial, weighting) for weighting in weightings])

    for each in together(2, work):
        assert [vector.tolist() for vector in each.vectors] == [[4.0], [3.0]]
    mixed = together(
        2, lambda each: all_reduce(each, [Operand(Partial(each.worker, 1, np.ones(1), "a"), weightings[each.worker])])
    )
    assert all(isinstance(each, MismatchError) for each in mixed)


def test_one_worker_needs_no_peers() -> None:
    partial = Partial(0, 5, np.array([0.1, 0.2], np.float32), "a")
    found = all_reduce(Solo(), [Operand(partial)], record=b"own")
    assert found.vectors[0] is not None
    assert found.vectors[0].tobytes() == partial.weights.tobytes()
    assert (found.examples, found.records) == ([[5]], [b"own"])


def test_a_value_that_is_not_finite_stops_all_with_the_same_error() -> None:
    weights = [np.zeros(1000, np.float32) for _ in range(4)]
    weights[2][777] = np.nan

    def work(communicator: Communicator) -> Reduced:
        return all_reduce(communicator, [Operand(Partial(communicator.worker, 1, weights[communicator.worker], "a"))])

    found = together(4, work)
    assert {str(each) for each in found} == {"worker 2: weight 777 is nan"}
    assert {type(each) for each in found} == {DivergedError}


@pytest.mark.filterwarnings("error")
def test_nothing_comes_of_vectors_that_no_worker_has_examples_of() -> None:
    for each in reduced([[Partial(worker, 0, np.ones(BLOCK + 5), "a")] for worker in range(2)]):
        assert each.vectors == [None]


def test_a_partial_without_examples_may_hold_anything() -> None:
    partials = [[Partial(worker, int(worker > 0), np.full(10, [np.nan, 1.0, 3.0][worker]), "a")] for worker in range(3)]
    for each in reduced(partials):
        assert each.vectors[0] is not None
        assert each.vectors[0].tolist() == [2.0] * 10


@pytest.mark.parametrize(
    "other",
    [
        Partial(2, 1, np.zeros(10, np.float32), "b"),
        Partial(2, 1, np.zeros(11, np.float32), "a"),
        Partial(2, 1, np.zeros(10, np.float64), "a"),
    ],
    ids=["layout", "size", "dtype"],
)
def test_other_layouts_are_refused_by_all(other: Partial) -> None:
    own = [Partial(worker, 1, np.zeros(10, np.float32), "a") for worker in range(2)]
    found = together(3, lambda each: all_reduce(each, [Operand([*own, other][each.worker])]))
    assert all(isinstance(each, MismatchError) for each in found)
    assert {each.where["worker"] for each in found} <= {0, 1, 2}


def test_illegal_partials_are_refused() -> None:
    for bad in (
        Partial(0, -1, np.zeros(2), "a"),
        Partial(0, 1, np.zeros((1, 2)), "a"),
        Partial(0, 1, np.zeros(2, int), "a"),
    ):
        with pytest.raises(MismatchError):
            all_reduce(Solo(), [Operand(bad)])


BUFFERS = Layout.build(
    [
        parameter("w", (BLOCK + 9,), decays=True),
        buffer("mean", (5,), "float32", "mean"),
        buffer("count", (BLOCK + 3,), "int64", "max"),
        buffer("mask", (7,), "bool", "keep"),
    ],
    "float64",
)


def buffered(communicator: Communicator, values: Sequence[Sequence[Vector]], examples: Sequence[int]) -> Reduced:
    """``values[worker]``: a vector for each segment of `BUFFERS`."""
    worker = communicator.worker
    return all_reduce(
        communicator,
        [
            Operand(Partial(worker, examples[worker], each, BUFFERS.fingerprint), segment=segment)
            for segment, each in zip(BUFFERS.segments, values[worker], strict=True)
        ],
    )


@pytest.mark.parametrize("examples", [[1, 7, 3], [5, 0, 2], [0, 4, 0]])
@pytest.mark.filterwarnings("error")
def test_buffers_are_combined_by_their_own_rules(examples: list[int]) -> None:
    random = np.random.default_rng(0)
    values = [
        [
            random.standard_normal(BUFFERS.size),
            random.standard_normal(5).astype(np.float32),
            random.integers(2**53, 2**62, BLOCK + 3),
            np.arange(7) % 2 == 0,
        ]
        for _ in examples
    ]
    found = together(3, lambda each: buffered(each, values, examples))
    for number, segment in enumerate(BUFFERS.segments):
        counted = [worker for worker in range(3) if examples[worker]]
        average = Average(counted, BUFFERS.fingerprint, segment=segment)
        for worker in counted:
            average.add(Partial(worker, examples[worker], values[worker][number], BUFFERS.fingerprint))
        expected = average.finish()
        for each in found:
            vector = each.vectors[number]
            assert (vector.dtype, vector.tobytes()) == (expected.dtype, expected.tobytes())
    assert found[0].vectors[2].max() > 2**53


def test_a_buffer_that_differs_stops_all_with_an_error_that_names_it() -> None:
    values = [[np.zeros(segment.size, segment.dtype) for segment in BUFFERS.segments] for _ in range(3)]
    values[2][3][6] = True
    found = together(3, lambda each: buffered(each, values, [1, 1, 1]))
    assert all(isinstance(each, MismatchError) for each in found)
    assert len({str(each) for each in found}) == 1
    assert "buffer mask must be the same at all workers" in str(found[0])
    values[2][3][6] = False
    values[1][1][4] = np.nan
    found = together(3, lambda each: buffered(each, values, [1, 1, 1]))
    assert {str(each) for each in found} == {"worker 1: weight 4 is nan"}


@given(st.lists(st.integers(0, 40 * BLOCK), min_size=1, max_size=5), st.integers(1, 40))
def test_every_element_has_one_owner(sizes: list[int], workers: int) -> None:
    owned = ranges(sizes, workers)
    assert len(owned) == workers
    flat = [(index, part.start, part.stop) for own in owned for index, part in own]
    covered = dict.fromkeys(range(len(sizes)), 0)
    for index, start, stop in flat:
        assert covered[index] == start < stop
        covered[index] = stop
    assert list(covered.values()) == sizes
    blocks = sum(-(-size // BLOCK) for size in sizes)
    shares = [sum(part.stop - part.start for _, part in own) for own in owned]
    if blocks >= FEW_BLOCKS * workers:
        edges = {0, *sizes}
        assert all(start % BLOCK == 0 and (stop % BLOCK == 0 or stop in edges) for _, start, stop in flat)
    else:
        assert max(shares) - min(shares) <= 1


@given(st.lists(st.integers(0, 4 * BLOCK), min_size=1, max_size=5), st.integers(1, 9))
def test_messages_hold_what_is_owned_in_order(sizes: list[int], workers: int) -> None:
    for own, sent in zip(ranges(sizes, workers), messages(tuple(sizes), workers), strict=True):
        pieces = [(piece.index, piece.range.start, piece.range.stop) for message in sent for piece in message]
        elements = [(index, element) for index, part in own for element in (part.start, part.stop - 1)]
        assert all(
            any(index == at and start <= element < stop for at, start, stop in pieces) for index, element in elements
        )
        assert sum(stop - start for _, start, stop in pieces) == sum(part.stop - part.start for _, part in own)
        assert all(sum(piece.range.stop - piece.range.start for piece in message) <= MESSAGE for message in sent)


@pytest.mark.parametrize("workers", [2, 8, 32])
def test_a_worker_sends_the_same_bytes_however_many_there_are(workers: int) -> None:
    """2 (workers - 1) / workers times the vector, and a small head for each peer."""

    def work(communicator: Communicator) -> int:
        all_reduce(communicator, [Operand(Partial(communicator.worker, 1, np.ones(64_000, np.float32), "a"))])
        return communicator.sent_bytes

    for sent in together(workers, work):
        assert 0 <= sent - 2 * (workers - 1) * 4 * 64_000 // workers <= 150 * workers
