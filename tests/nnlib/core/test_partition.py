"""Partitions of hidden units: their text, and which sub-net a worker has."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.core.partition import Partition


def test_the_sub_nets_of_figure_2() -> None:
    partition = Partition.parse("aabb-abab")
    assert partition.subnets(0) == [(0, 0), (1, 1)]
    assert partition.subnets(1) == [(0, 1), (1, 0)]
    assert [units.tolist() for units in partition.units((0, 1))] == [[0, 1], [1, 3]]
    together = [partition.subnet_of("together", worker, 7) for worker in range(5)]
    assert together == [(0, 0), (1, 1), (0, 1), (1, 0), (0, 0)]
    in_turn = [[partition.subnet_of("rounds", worker, round_) for worker in range(2)] for round_ in range(3)]
    assert in_turn == [[(0, 0), (1, 1)], [(0, 1), (1, 0)], [(0, 0), (1, 1)]]
    assert [partition.subnet_of("none", worker, 1) for worker in range(3)] == [(0, 0), (1, 1), (0, 0)]


@st.composite
def partitions(draw: st.DrawFn) -> Partition:
    groups = draw(st.integers(2, 4))
    layer = st.lists(st.integers(0, groups - 1), max_size=4).flatmap(
        lambda more: st.permutations([*range(groups), *more])
    )
    return Partition.of(draw(st.lists(layer, min_size=1, max_size=4)))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(partitions())
def test_every_weight_is_in_one_sub_net_of_one_shift(partition: Partition) -> None:
    assert Partition.parse(str(partition)) == partition
    for below, above in itertools.pairwise(range(len(partition.layers))):
        held = np.zeros((partition.widths[below], partition.widths[above]), int)
        for shift in range(partition.shifts):
            seen = np.zeros_like(held)
            for subnet in partition.subnets(shift):
                units = partition.units(subnet)
                seen[np.ix_(units[below], units[above])] += 1
            assert seen.max() == 1
            held += seen
        assert (held == 1).all()
    for shift in range(partition.shifts):
        for layer, width in enumerate(partition.widths):
            units = [partition.units(subnet)[layer] for subnet in partition.subnets(shift)]
            assert sorted(np.concatenate(units).tolist()) == list(range(width))


def test_names_of_groups_do_not_matter() -> None:
    assert str(Partition.parse("bba-aba").canonical()) == "aab-bab"
    assert str(Partition.parse("bba-bab").canonical(by_layer=True)) == "aab-aba"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "letter for each"),
        ("ab-", "letter for each"),
        ("aB", "letter for each"),
        ("aaa", "at least two groups"),
        ("abb-aaa", "layer 2 has no unit in group b"),
        ("acc", "layer 1 has no unit in group b"),
    ],
)
def test_texts_that_are_no_partitions(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Partition.parse(text)
