from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnlib.core.errors import DataError
from nnlib.data.encoding import Encoding
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.raw_rows import read_raw_rows

TRAIN = "size,colour,kind\n1,red,cat\n2,blue,dog\n3,red,cat\n"


@pytest.fixture
def encoding(tmp_path: Path) -> Encoding:
    (tmp_path / "train.csv").write_text(TRAIN)
    options = ImportOptions(label="kind", categorical=("colour",))
    return import_dataset([str(tmp_path / "train.csv")], str(tmp_path / "d"), options).encoding


def write(tmp_path: Path, text: str) -> str:
    (tmp_path / "new.csv").write_text(text)
    return str(tmp_path / "new.csv")


def test_labelled_rows(tmp_path: Path, encoding: Encoding) -> None:
    (chunk,) = read_raw_rows(write(tmp_path, TRAIN), encoding)
    assert chunk.x.tolist() == [[1, 0, 1], [2, 1, 0], [3, 0, 1]]
    assert chunk.y is not None
    assert chunk.y.tolist() == [0, 1, 0]


def test_columns_in_another_order_without_labels(tmp_path: Path, encoding: Encoding) -> None:
    source = write(tmp_path, "name,colour,size\nTom,blue,9\nRex,red,8\n")
    (chunk,) = read_raw_rows(source, encoding)
    assert chunk.y is None
    assert chunk.x.tolist() == [[9, 1, 0], [8, 0, 1]]


def test_chunks_count_rows_over_files(tmp_path: Path, encoding: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnlib.data.importing.raw_rows._rows_together", lambda features: 2)
    source = write(tmp_path, TRAIN)
    chunks = list(read_raw_rows([source, source], encoding))
    assert [(chunk.row, len(chunk.x)) for chunk in chunks] == [(0, 2), (2, 1), (3, 2), (5, 1)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("size,kind\n1,cat\n", ("colour",)),
        ("size,colour\n1,red\n2,green\n", ("row 2", "colour", "'green'")),
        ("size,colour\n1,red\nbig,red\n", ("row 2", "size", "'big'")),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, encoding: Encoding, text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        list(read_raw_rows(write(tmp_path, text), encoding))
    assert all(part in str(caught.value) for part in ("new.csv", *parts))


def test_images_from_other_files_than_at_import(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 4, 4), np.uint8)
    labels = np.arange(30) % 3
    np.savez(tmp_path / "a.npz", X=pixels, y=labels)
    encoding = import_dataset([str(tmp_path / "a.npz")], str(tmp_path / "d"), ImportOptions()).encoding
    np.save(tmp_path / "b.npy", pixels)
    np.savez(tmp_path / "c.npz", data=pixels.reshape(30, 16))
    flat = np.column_stack([pixels.reshape(30, 16), labels])
    names = ",".join([*(f"p{i}" for i in range(16)), "y"])
    np.savetxt(tmp_path / "d.csv", flat, "%d", ",", header=names, comments="")
    for name in ("a.npz", "b.npy", "c.npz", "d.csv"):
        (chunk,) = read_raw_rows(str(tmp_path / name), encoding)
        assert np.array_equal(chunk.x, pixels.reshape(30, 16).astype(np.float32) * np.float32(1 / 255))
        assert (chunk.y is None) == (name in ("b.npy", "c.npz"))
    np.save(tmp_path / "e.npy", pixels[:, :3])
    with pytest.raises(DataError, match="12 numbers, the model wants 16"):
        list(read_raw_rows(str(tmp_path / "e.npy"), encoding))


def test_arrays_are_found_by_their_names_at_import(tmp_path: Path) -> None:
    pixels, labels = np.arange(24, dtype=np.uint8).reshape(6, 2, 2), np.arange(6) % 2
    np.savez(tmp_path / "a.npz", pictures=pixels, kinds=labels, X=np.zeros(3))
    options = ImportOptions(features=("pictures",), label="kinds")
    encoding = import_dataset([str(tmp_path / "a.npz")], str(tmp_path / "d"), options).encoding
    (chunk,) = read_raw_rows(str(tmp_path / "a.npz"), encoding)
    assert np.array_equal(chunk.stored, pixels.reshape(6, 4))
    assert chunk.y is not None
    assert np.array_equal(chunk.y, labels)
