"""Tables made of arrays with as many rows: what NumPy, MATLAB and IDX files hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError, UsageError
from nnlib.data.columns import Columns
from nnlib.data.importing.formats.table import Role, Table, rows_per_chunk
from nnlib.data.importing.read_options import ReadOptions

FEATURES = ("X", "x", "data", "features", "images", "arr_0")
LABELS = ("y", "Y", "labels", "label", "target", "targets", "arr_1")
MOST_TEXT_BYTES = 1 << 16


@dataclass(frozen=True)
class ArrayColumn:
    """An array of n rows, shape (n, ...), that can be streamed.

    ``blocks(rows)`` yields it in order, at most ``rows`` rows at a time.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[int], Iterator[npt.NDArray[Any]]]

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> ArrayColumn:
        """Return the column of an array in memory."""

        def blocks(rows: int) -> Iterator[npt.NDArray[Any]]:
            for start in range(0, len(array), rows):
                yield array[start : start + rows]

        return cls(array.shape, array.dtype, blocks)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def choose_array(
    names: Sequence[str], wanted: str | None, usual: Sequence[str], what: str, option: str, file: str
) -> str:
    """Return the array that the user names (``wanted``), or else the first with a usual name.

    ``what``, ``option`` and ``file`` stand in the message of the `UsageError` that is raised if there is none.
    """
    if wanted is not None:
        if wanted in names:
            return wanted
        raise UsageError(f"{option}: there is no array {wanted!r}; arrays: {', '.join(names)}", file=file)
    for name in usual:
        if name in names:
            return name
    raise UsageError(
        f"it is not clear which array holds the {what}; arrays: {', '.join(names) or 'none'}",
        hint=f"name it with {option}",
        file=file,
    )


def array_table(
    file: str,
    arrays: Mapping[str, ArrayColumn],
    features: Sequence[str],
    label: str | None,
    extra: tuple[str, ...] = (),
) -> Table:
    """Return a table of the arrays that have as many rows as the first of ``features``; others are left out.

    ``features``, ``label`` and ``extra`` name arrays (see `Table`). Raises `DataError` for arrays that cannot be used.
    """
    rows = arrays[features[0]].shape[0] if arrays[features[0]].shape else 0
    for name in [*features, *([label] if label else [])]:
        array = arrays[name]
        if not array.shape:
            raise DataError("is a single number, not an array of rows", file=file, column=name)
        allowed = "biufUS" if name == label else "biuf"
        if array.dtype.hasobject:
            hint = "save plain numbers or strings"
            raise DataError("holds Python objects, which are never unpickled", hint=hint, file=file, column=name)
        if array.dtype.kind not in allowed:
            raise DataError(f"expected numbers, found {array.dtype}", file=file, column=name)
        if array.dtype.kind in "US" and array.dtype.itemsize > MOST_TEXT_BYTES:
            raise DataError(
                f"has texts of {array.dtype.itemsize:,} bytes: no labels are so long", file=file, column=name
            )
        if array.shape[0] != rows:
            raise DataError(f"has {array.shape[0]} rows, {features[0]} has {rows}", file=file, column=name)
    if label and math.prod(arrays[label].shape[1:]) != 1:
        raise DataError(
            f"expected one label a row, found shape {arrays[label].shape}",
            hint="one-hot labels: save their argmax instead",
            file=file,
            column=label,
        )
    columns = {name: array for name, array in arrays.items() if array.shape[:1] == (rows,)}
    shapes = {name: array.shape[1:] for name, array in columns.items() if math.prod(array.shape[1:]) != 1}
    if any(0 in shape for shape in shapes.values()):
        raise DataError("rows have no elements", file=file)

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        size = rows_per_chunk(sum(columns[name].row_bytes for name in roles))
        streams = {name: columns[name].blocks(size) for name in roles}
        for start in range(0, rows, size):
            chunk: dict[str, Any] = {}
            for name, stream in streams.items():
                block = next(stream)
                block = block.reshape(len(block), -1) if name in shapes else block.reshape(len(block))
                chunk[name] = block if block.dtype.isnative else block.astype(block.dtype.newbyteorder("="))
            if any(len(block) != min(size, rows - start) for block in chunk.values()):
                raise DataError("an array ended early", file=file)
            yield chunk
        for stream in streams.values():
            next(stream, None)  # lets a stream check what follows its last row

    return Table(
        file,
        tuple(columns),
        chunks,
        shapes,
        {name: array.dtype.name for name, array in columns.items()},
        label,
        tuple(features),
        extra,
        rows,
    )


def keyed_table(file: str, arrays: Mapping[str, ArrayColumn], options: ReadOptions) -> Table:
    """Return a table of named arrays, whose features and label have the names in ``options`` or the usual ones.

    Raises `UsageError` if it is not clear which they are, and `DataError` for arrays that cannot be used.
    """
    names = list(arrays)
    features = list(options.features) or [name for name in options.likely_features if name in names]
    features = features or [choose_array(names, None, FEATURES, "features", "--features", file)]
    for name in features:
        choose_array(names, name, (), "features", "--features", file)
    label: str | None = None
    labels = (options.likely_label, *LABELS) if options.likely_label else LABELS
    if options.label is not None or any(name in names for name in labels):
        rest = [name for name in names if name not in features]
        label = choose_array(rest, options.label, labels, "labels", "--label", file)
    return array_table(file, arrays, features, label)
