"""Samples and orders: exact counts, permutations, and the same walk however it is taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.core.seeds import Purpose, generator, hash_key, row_hash
from nnlib.data.sampling import epoch_order, sample_mask, sample_size

fixed = settings(derandomize=True, deadline=None, max_examples=80)
sizes = st.lists(st.integers(0, 40), max_size=12)
ids = st.lists(st.integers(0, 2**62), min_size=1, max_size=200, unique=True).map(lambda rows: np.array(rows, np.int64))


def walk(group_sizes: list[int], window_rows: int, epoch: int) -> list[int]:
    """Row numbers (counting through all groups) in the order of an epoch."""
    starts = np.concatenate([[0], np.cumsum(group_sizes)]).astype(np.int64)
    order: list[int] = []
    for window in epoch_order(group_sizes, window_rows, generator(3, Purpose.ORDER, epoch=epoch)):
        rows = np.concatenate(
            [np.arange(starts[group] + start, starts[group] + stop) for group, start, stop in window.pieces]
        )
        assert len(rows) == len(window.permutation) <= window_rows
        order += rows[window.permutation].tolist()
    return order


@pytest.mark.parametrize(
    ("rows", "fraction", "drawn"), [(0, 0.5, 0), (1, 0.1, 1), (5, 0.5, 3), (10, 0.9, 9), (7, 1.0, 7)]
)
def test_sample_size_rounds_half_up_and_is_never_nothing(rows: int, fraction: float, drawn: int) -> None:
    assert sample_size(rows, fraction) == drawn


@fixed
@given(ids, st.floats(0.01, 1.0), st.randoms(use_true_random=False))
def test_a_sample_is_exact_and_depends_on_the_set_of_rows_alone(
    row: np.ndarray, fraction: float, random: object
) -> None:
    key = hash_key(1, Purpose.SAMPLE, epoch=5, worker=2)
    mask = sample_mask(row, fraction, key)
    count = min(len(row), max(1, int(np.floor(fraction * len(row) + 0.5))))
    assert mask.sum() == count
    assert set(row[mask].tolist()) == set(row[np.argsort(row_hash(row, key))][:count].tolist())
    order = np.arange(len(row))
    random.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(sample_mask(row[order], fraction, key), mask[order])


def test_rounds_and_workers_draw_differently() -> None:
    row = np.arange(1000)
    keys = [hash_key(1, Purpose.SAMPLE, epoch=epoch, worker=worker) for epoch, worker in ((0, 0), (5, 0), (0, 1))]
    masks = [sample_mask(row, 0.5, key) for key in keys]
    for one in range(3):
        for other in range(one):
            assert 0.4 < (masks[one] == masks[other]).mean() < 0.6


def test_over_many_rounds_every_row_is_drawn_about_as_often() -> None:
    row = np.arange(200)
    drawn = np.zeros(len(row), int)
    for epoch in range(400):
        drawn += sample_mask(row, 0.9, hash_key(0, Purpose.SAMPLE, epoch=epoch))
    # 400 draws at 0.9: standard deviation 6; five of them on both sides.
    assert 330 < drawn.min() <= drawn.max() < 390


@fixed
@given(sizes, st.integers(1, 60), st.integers(0, 5))
def test_an_epoch_is_a_permutation(group_sizes: list[int], window_rows: int, epoch: int) -> None:
    order = walk(group_sizes, window_rows, epoch)
    assert sorted(order) == list(range(sum(group_sizes)))
    windows = list(epoch_order(group_sizes, window_rows, generator(3, Purpose.ORDER, epoch=epoch)))
    assert all(len(window.permutation) == window_rows for window in windows[:-1])


@fixed
@given(sizes, st.integers(1, 60))
def test_jumping_to_an_epoch_equals_walking_there(group_sizes: list[int], window_rows: int) -> None:
    walked = [walk(group_sizes, window_rows, epoch) for epoch in range(8)]
    assert walk(group_sizes, window_rows, 7) == walked[7]


def test_epochs_differ_and_one_window_mixes_all_rows() -> None:
    orders = [walk([10] * 20, 1000, epoch) for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2]
    # In one window over everything, neighbours come from the same group of ten about once in twenty.
    groups = np.array(orders[0]) // 10
    assert (groups[1:] == groups[:-1]).mean() < 0.15


def test_a_window_takes_neighbouring_groups_in_permuted_order() -> None:
    windows = list(epoch_order([3, 4, 0, 5], 6, generator(0, Purpose.ORDER)))
    groups = generator(0, Purpose.ORDER).permutation(4).tolist()
    visited = list(dict.fromkeys(piece.group for window in windows for piece in window.pieces))
    assert visited == [group for group in groups if group != 2]
    assert [len(window.permutation) for window in windows] == [6, 6]
