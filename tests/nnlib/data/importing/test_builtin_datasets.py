"""The built-in datasets: their rows, and what is said where their files are missing."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from nnlib.core.errors import DataError, UsageError
from nnlib.data.importing.builtin_datasets import FASHION_CLASSES, digits, fashion_mnist_tables
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions


def write_idx(path: Path, array: np.ndarray, *, packed: bool = True) -> None:
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if packed else data)


def write_fashion(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write the four files, the test ones plain, and return all images and labels."""
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (14, 28, 28), np.uint8)
    labels = np.array([*range(10), 9, 0, 3, 5], np.uint8)
    write_idx(folder / "train-images-idx3-ubyte.gz", images[:10])
    write_idx(folder / "train-labels-idx1-ubyte.gz", labels[:10])
    write_idx(folder / "t10k-images-idx3-ubyte", images[10:], packed=False)
    write_idx(folder / "t10k-labels-idx1-ubyte", labels[10:], packed=False)
    return images, labels


def test_digits28_are_the_digits_uncropped(tmp_path: Path) -> None:
    whole = import_dataset(["digits28"], str(tmp_path / "whole"), ImportOptions())
    cropped = import_dataset(["digits"], str(tmp_path / "cropped"), ImportOptions())
    assert (whole.shape, cropped.shape) == ((28, 28), (20, 20))
    rows = pq.read_table(tmp_path / "whole" / "part-00000.parquet")
    x = np.stack(rows["x"].to_numpy()).reshape(-1, 28, 28)
    images, labels = digits()
    assert np.array_equal(x, images[rows["row"].to_numpy()])
    assert np.array_equal(rows["y"].to_numpy(), labels[rows["row"].to_numpy()])
    x_cropped = np.stack(pq.read_table(tmp_path / "cropped" / "part-00000.parquet")["x"].to_numpy())
    assert np.array_equal(x_cropped.reshape(-1, 20, 20), x[:, 4:-4, 4:-4])  # the same order of rows, too


def test_fashion_mnist_from_a_folder(tmp_path: Path) -> None:
    images, labels = write_fashion(tmp_path / "files")
    options = ImportOptions(folder=str(tmp_path / "files"))
    dataset = import_dataset(["fashion-mnist"], str(tmp_path / "data"), options)
    assert (dataset.name, dataset.shape, dataset.x_dtype, dataset.columns) == (
        "fashion-mnist",
        (28, 28),
        "uint8",
        {"split": "string"},
    )
    assert sorted(dataset.classes) == sorted(FASHION_CLASSES)
    rows = pq.read_table(tmp_path / "data" / "part-00000.parquet").sort_by("row")
    assert np.array_equal(np.stack(rows["x"].to_numpy()).reshape(-1, 28, 28), images)
    assert [dataset.classes[y] for y in rows["y"].to_pylist()] == [FASHION_CLASSES[label] for label in labels]
    assert rows["split"].to_pylist() == ["train"] * 10 + ["test"] * 4


def test_missing_files_name_both_ways(tmp_path: Path) -> None:
    write_fashion(tmp_path / "files")
    (tmp_path / "files" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="needs the file t10k-labels-idx1-ubyte") as caught:
        fashion_mnist_tables(str(tmp_path / "files"))
    assert "apt install dataset-fashion-mnist" in str(caught.value)
    assert "--from FOLDER" in str(caught.value)


def test_a_label_of_no_class_is_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path / "files")
    write_idx(tmp_path / "files" / "train-labels-idx1-ubyte.gz", np.arange(10, dtype=np.uint8) + 1)
    with pytest.raises(DataError, match="holds no labels from 0 to 9"):
        fashion_mnist_tables(str(tmp_path / "files"))


@pytest.mark.parametrize("source", ["digits", "digits28", "iris", "some.csv"])
def test_from_is_for_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("some.csv").write_text("a,label\n1,x\n2,y\n")
    with pytest.raises(UsageError, match="--from is for"):
        import_dataset([source], "out", ImportOptions(folder="files", label="label"))
    assert not Path("out").exists()


def test_the_folder_of_files_cannot_be_the_output(tmp_path: Path) -> None:
    write_fashion(tmp_path / "files")
    options = ImportOptions(folder=str(tmp_path / "files"))
    with pytest.raises(UsageError):
        import_dataset(["fashion-mnist"], str(tmp_path / "files" / "inside"), options)
