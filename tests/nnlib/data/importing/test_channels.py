"""Arrays of images are stored with their channels first, wherever the file has them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.io

from nnlib.core.errors import DataError
from nnlib.core.notes import NnjobsNote
from nnlib.data.dataset import Dataset
from nnlib.data.importing.import_dataset import from_arrays, import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.raw_rows import read_raw_rows

Y = np.arange(8) % 2
COLOURS = np.random.default_rng(0).integers(0, 256, (8, 3, 5, 6), np.uint8)
"""Channels first."""


def rows_of(dataset: Dataset) -> np.ndarray:
    rows = pq.read_table(Path(dataset.address) / "part-00000.parquet").sort_by("row")
    return np.array(rows["x"].to_pylist()).reshape(-1, *dataset.shape)


def write(folder: Path, kind: str, images: np.ndarray) -> list[str]:
    folder.mkdir(exist_ok=True)
    path = folder / f"in.{kind}"
    if kind == "npz":
        np.savez(path, x=images, y=Y)
    elif kind == "npy":
        np.save(path, images)
        np.save(folder / "labels.npy", Y)
    else:
        scipy.io.savemat(path, {"X": np.moveaxis(images, 0, -1), "y": Y[:, None]})
    return [str(path)]


@pytest.mark.parametrize("kind", ["npz", "npy", "mat"])
@pytest.mark.parametrize("last", [False, True])
def test_where_the_channels_are_is_seen(tmp_path: Path, kind: str, last: bool) -> None:
    images = COLOURS.transpose(0, 2, 3, 1) if last else COLOURS
    label = str(tmp_path / "labels.npy") if kind == "npy" else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NnjobsNote)
        dataset = import_dataset(write(tmp_path, kind, images), str(tmp_path / "out"), ImportOptions(label=label))
    assert dataset.shape == (3, 5, 6)
    assert np.array_equal(rows_of(dataset), COLOURS)
    turned = [str(each.message) for each in caught if "are last: rows become 3 x 5 x 6" in str(each.message)]
    assert len(turned) == last


def test_parts_are_turned(tmp_path: Path) -> None:
    images = COLOURS.transpose(0, 2, 3, 1)
    np.savez(tmp_path / "in.npz", x_train=images[:6], y_train=Y[:6], x_test=images[6:], y_test=Y[6:])
    with pytest.warns(NnjobsNote, match="are last"):
        dataset = import_dataset([str(tmp_path / "in.npz")], str(tmp_path / "out"), ImportOptions())
    assert dataset.shape == (3, 5, 6)
    assert np.array_equal(rows_of(dataset), COLOURS)


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((8, 5, 6, 1), {}, (5, 6)),
        ((8, 1, 5, 6), {}, (5, 6)),
        ((8, 5, 6, 7), {}, (5, 6, 7)),  # a volume, as it is
        ((8, 5, 6, 7), {"channels": "last"}, (7, 5, 6)),
        ((8, 3, 6, 3), {"channels": "first"}, (3, 6, 3)),
        ((8, 3, 6, 3), {"channels": "last"}, (3, 3, 6)),
        ((8, 5, 6), {}, (5, 6)),
    ],
)
@pytest.mark.filterwarnings("ignore::nnlib.core.notes.NnjobsNote")
def test_shapes(tmp_path: Path, shape: Any, options: dict[str, Any], expected: tuple[int, ...]) -> None:
    images = np.arange(np.prod(shape)).reshape(shape)
    dataset = from_arrays(images, Y, str(tmp_path / "out"), **options)
    assert dataset.shape == expected
    turned = np.moveaxis(images, 3, 1) if options.get("channels") == "last" else images
    assert np.array_equal(rows_of(dataset), turned.reshape(-1, *expected))


def test_both_ways_need_a_word(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows of 3 x 6 x 3 may have their channels first or last") as caught:
        from_arrays(np.zeros((8, 3, 6, 3)), Y, str(tmp_path / "out"))
    assert "--channels first" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore::nnlib.core.notes.NnjobsNote")
def test_a_model_says_what_its_rows_are(tmp_path: Path) -> None:
    dataset = from_arrays(COLOURS, Y, str(tmp_path / "out"))
    for number, images in enumerate([COLOURS, COLOURS.transpose(0, 2, 3, 1)]):
        file = write(tmp_path / str(number), "npz", images)
        (rows,) = read_raw_rows(file, dataset.encoding, shape=dataset.shape)
        assert np.array_equal(rows.stored.reshape(COLOURS.shape), COLOURS)
    # A dataset of an earlier version has its rows as the array had them: its models take them so.
    (rows,) = read_raw_rows(file, dataset.encoding, shape=(5, 6, 3))
    assert np.array_equal(rows.stored.reshape(8, 5, 6, 3), COLOURS.transpose(0, 2, 3, 1))
