"""Random numbers are functions of what they are for: distinct purposes, no sums of seeds, the same bits for ever."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nnlib.core.seeds import Purpose, generator, hash_key, row_hash

WORD = 2**64


def test_known_answers() -> None:
    # Every split, order and weight of every run follows from these: if one changes, so does every result.
    assert [int(purpose) for purpose in Purpose] == list(range(1, 13))
    assert hash_key(0, Purpose.SPLIT) == (378543348469464961, 14785174870466993490)
    assert hash_key(2**63 - 1, Purpose.SAMPLE, split=3, fold=1, epoch=10, worker=7) == (
        3617397032463671593,
        2802539628798850196,
    )
    assert generator(0, Purpose.INIT).integers(0, 2**63, 3).tolist() == [
        2111856767739335961,
        4035644173367231288,
        8243162404414547977,
    ]
    assert generator(5, Purpose.ORDER, split=1, epoch=2, worker=3).permutation(8).tolist() == [6, 3, 5, 1, 2, 4, 7, 0]
    assert row_hash(np.array([0, 1, 2**62, -1]), (1, 2)).tolist() == [
        17235469408947973867,
        18150421933739947993,
        180750111176274280,
        15839785061582574730,
    ]


def splitmix(word: int) -> int:
    """SplitMix64's finalizer in Python's integers."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB % WORD
    return word ^ word >> 31


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20),
    st.tuples(st.integers(0, WORD - 1), st.integers(0, WORD - 1)),
)
def test_row_hash_equals_whole_number_arithmetic(rows: list[int], key: tuple[int, int]) -> None:
    expected = [splitmix(splitmix((row + key[0]) % WORD) ^ key[1]) for row in rows]
    assert row_hash(np.array(rows, np.int64), key).tolist() == expected


@pytest.mark.parametrize("start", [0, 2**40, -500_000])
def test_row_hash_never_ties(start: int) -> None:
    hashes = row_hash(np.arange(start, start + 1_000_000), hash_key(3, Purpose.SPLIT, split=start % 7))
    assert len(np.unique(hashes)) == 1_000_000


@pytest.mark.parametrize("bits", [slice(0, 8), slice(28, 36), slice(56, 64)])
@pytest.mark.parametrize("step", [1, 64, 1000])
def test_row_hash_is_uniform(bits: slice, step: int) -> None:
    hashes = row_hash(np.arange(0, 200_000 * step, step), hash_key(1, Purpose.SAMPLE, epoch=5))
    values = (hashes >> np.uint64(bits.start)).astype(np.uint64) & np.uint64(255)
    assert chisquare(np.bincount(values.astype(np.intp), minlength=256)).pvalue > 1e-4


def test_two_keys_order_rows_independently() -> None:
    rows = np.arange(100_000)
    one, two = (row_hash(rows, hash_key(0, Purpose.SAMPLE, epoch=epoch)) for epoch in (0, 1))
    table = np.bincount((one >> np.uint64(60)).astype(np.intp) * 16 + (two >> np.uint64(60)).astype(np.intp))
    assert chisquare(table).pvalue > 1e-4


def test_every_use_has_its_own_numbers() -> None:
    """No two neighbouring uses meet: nothing adds seed, split, fold, epoch or worker."""
    keys = {
        (seed, purpose, *use): hash_key(seed, purpose, split=use[0], fold=use[1], epoch=use[2], worker=use[3])
        for seed in (0, 1, 2, 2**32, 2**32 + 1, 2**62)
        for purpose in (Purpose.INIT, Purpose.SPLIT, Purpose.SHUFFLE)
        for use in itertools.product((0, 1, 2, 2**32 + 1), (0, 1), (0, 1, 2), (0, 1, 2))
    }
    assert len(set(keys.values())) == len(keys)
    assert len({word for key in keys.values() for word in key}) == 2 * len(keys)


def test_a_generator_is_not_moved_by_another() -> None:
    first = generator(1, Purpose.ORDER, epoch=7).permutation(100)
    generator(1, Purpose.ORDER, epoch=6).permutation(1000)
    np.random.default_rng().random()
    np.testing.assert_array_equal(generator(1, Purpose.ORDER, epoch=7).permutation(100), first)
