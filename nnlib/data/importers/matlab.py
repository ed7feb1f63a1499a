"""MATLAB and Octave ``.mat`` files up to version 7 (not 7.3, which is HDF5). Read whole: the format cannot stream."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from nnlib.data.importers.arrays import FEATURES, LABELS, ArrayColumn, keyed_table
from nnlib.data.importers.table import ReadOptions, Table
from nnlib.errors import DataError

_NUMERIC = {
    "double", "single", "logical",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
}  # fmt: skip


def open_mat(files: Sequence[str], options: ReadOptions) -> list[Table]:
    return [_open(file, options) for file in files]


def _open(file: str, options: ReadOptions) -> Table:
    from scipy.io import loadmat, whosmat  # here: costs a third of a second, and only .mat files need it
    from scipy.io.matlab import MatReadError

    try:
        kinds = {name: kind for name, _, kind in whosmat(file)}
        if not kinds:
            raise DataError("holds no arrays", file=file)
        wanted = [name for name in (*options.features, options.label) if name] or [*FEATURES, *LABELS]
        for name in wanted:
            if kinds.get(name, "double") not in _NUMERIC:
                raise DataError(f"expected a numeric matrix, found a {kinds[name]} array", file=file, column=name)
        numeric = [name for name, kind in kinds.items() if kind in _NUMERIC]
        arrays: dict[str, Any] = loadmat(file, variable_names=numeric)
    except NotImplementedError:
        raise DataError(
            "is a version 7.3 (HDF5) file", hint="save it in MATLAB with save(..., '-v7')", file=file
        ) from None
    except (MatReadError, ValueError, TypeError, KeyError, OSError, EOFError, IndexError, OverflowError,
            MemoryError, zlib.error) as error:  # fmt: skip
        raise DataError(f"is not a readable .mat file ({error})", file=file) from None
    columns = {}
    for name in numeric:
        array = arrays[name]
        if array.ndim == 2 and array.shape[0] == 1:
            array = array.T  # MATLAB knows no vectors: a row of labels is a 1 x n matrix
        columns[name] = ArrayColumn.of(array)
    return keyed_table(file, columns, options)
