"""Training rows changed at random: what each change does to an image, and by which draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.config.schema import Augment
from nnlib.core.errors import ConfigError
from nnlib.data.augmentation import Augmenter


class Played:
    """Draws that were written down, in the place of a generator."""

    def __init__(self, *draws: list[list[int]] | list[float]) -> None:
        self._draws = list(draws)

    def integers(self, low: int, high: int, size: tuple[int, ...], *, endpoint: bool) -> np.ndarray:
        drawn = np.array(self._draws.pop(0))
        assert drawn.shape == size
        assert endpoint
        assert drawn.min() >= low
        assert drawn.max() <= high
        return drawn

    def random(self, size: int) -> np.ndarray:
        return np.array(self._draws.pop(0))[:size]

    def standard_normal(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.array(self._draws.pop(0), dtype).reshape(shape)


def applied(options: Augment, shape: tuple[int, ...], x: object, *draws: Any) -> np.ndarray:
    batch = np.array(x, np.float32).reshape(len(x), -1)  # type: ignore[arg-type]
    Augmenter(options, shape).apply(batch, Played(*draws))  # type: ignore[arg-type]
    return batch.reshape(len(batch), *shape)


IMAGE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_shift_by_hand() -> None:
    # The corner of what is taken, counted in the image with an edge of 1 around: (1, 1) leaves it where it is.
    moved = applied(Augment(shift=1), (3, 3), [IMAGE] * 3, [[1, 1], [0, 1], [2, 0]])
    assert moved[0].tolist() == IMAGE
    assert moved[1].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]  # down by one
    assert moved[2].tolist() == [[0, 4, 5], [0, 7, 8], [0, 0, 0]]  # up and to the right


def test_crop_by_hand() -> None:
    moved = applied(Augment(crop=2), (3, 3), [IMAGE] * 2, [[2, 2], [0, 3]])
    assert moved[0].tolist() == IMAGE
    # Two rows of the mirror image come in above, without the edge itself; one column of it to the right.
    assert moved[1].tolist() == [[8, 9, 8], [5, 6, 5], [2, 3, 2]]


def test_flip_by_hand() -> None:
    colours = [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, 12]]]
    flipped = applied(Augment(flip=True), (3, 2, 2), [colours, colours], [0.49, 0.5])
    assert flipped[0].tolist() == [[[2, 1], [4, 3]], [[6, 5], [8, 7]], [[10, 9], [12, 11]]]
    assert flipped[1].tolist() == colours


def test_noise_by_hand() -> None:
    noisy = applied(Augment(noise=0.5), (2,), [[1, 2], [3, 4]], [1.0, -2.0, 0.0, 4.0])
    assert noisy.tolist() == [[1.5, 1.0], [3.0, 6.0]]


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    st.integers(1, 5), st.sampled_from([(4, 6), (1, 5, 4), (3, 5, 7)]), st.integers(0, 3), st.integers(0, 3),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_it_is_what_numpy_pads_and_cuts(
    rows: int, shape: tuple[int, ...], crop: int, shift: int, flip: bool, seed: int
) -> None:
    options = Augment(crop=crop, shift=shift, flip=flip, noise=0.25)
    x = np.random.default_rng(seed).normal(size=(rows, *shape)).astype(np.float32)
    batch = x.reshape(rows, -1).copy()
    augmenter = Augmenter(options, shape)
    augmenter.apply(np.ones((2, batch.shape[1]), np.float32), np.random.default_rng(8))  # its buffer is used again
    augmenter.apply(batch, np.random.default_rng(seed))

    rng = np.random.default_rng(seed)
    images = x.reshape(rows, -1, *shape[-2:])
    height, width = shape[-2:]
    for most, mode in ((crop, "reflect"), (shift, "constant")):
        if most:
            corners = rng.integers(0, 2 * most + 1, (rows, 2))
            padded = [np.pad(image, ((0, 0), (most, most), (most, most)), mode=mode) for image in images]  # type: ignore[call-overload]
            images = np.stack(
                [each[:, i : i + height, j : j + width] for each, (i, j) in zip(padded, corners, strict=True)]
            )
    if flip:
        images = np.where(rng.random(rows)[:, None, None, None] < 0.5, images[..., ::-1], images)
    expected = images.reshape(rows, -1) + np.float32(0.25) * rng.standard_normal(batch.shape, np.float32)
    assert np.array_equal(batch, expected)


def test_every_move_is_as_likely() -> None:
    batch = np.zeros((9000, 25), np.float64)
    batch[:, 12] = 1.0  # the middle of 5 x 5
    Augmenter(Augment(shift=1), (5, 5)).apply(batch, np.random.default_rng(0))
    counts = batch.sum(axis=0).reshape(5, 5)
    assert counts.sum() == 9000
    assert np.all(np.abs(counts[1:4, 1:4] - 1000) < 150)  # five standard deviations
    assert counts[0].sum() == counts[:, 0].sum() == 0


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        (Augment(shift=1), (400,), "key data.augment.shift: moves or mirrors images"),
        (Augment(flip=True), (4,), "key data.augment.flip: moves or mirrors images"),
        (Augment(crop=1), (32, 32, 3), "channels last"),
        (Augment(crop=4), (3, 4, 9), "4 pixels are too many for images of 3 x 4 x 9"),
        (Augment(shift=28), (28, 28), "28 pixels are too many"),
    ],
)
def test_rows_that_cannot_be_moved(options: Augment, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmenter(options, shape)


def test_noise_needs_no_images() -> None:
    batch = np.zeros((3, 7), np.float32)
    Augmenter(Augment(noise=1.0), (7,)).apply(batch, np.random.default_rng(1))
    assert np.array_equal(batch, np.random.default_rng(1).standard_normal((3, 7), np.float32))
