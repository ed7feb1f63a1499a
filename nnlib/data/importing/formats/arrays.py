"""Tables made of arrays with as many rows: what NumPy, MATLAB and IDX files hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError, UsageError
from nnlib.data.columns import Columns
from nnlib.data.importing.formats.table import Role, Table, rows_per_chunk
from nnlib.data.importing.read_options import ReadOptions

FEATURES = ("X", "x", "data", "features", "images", "arr_0", "inputs", "samples", "vectors")
LABELS = ("y", "Y", "labels", "label", "target", "targets", "arr_1", "classes")
PARTS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
"""A part of the rows, as names of arrays spell it -> its value in the column ``split``."""

_FEATURES_OF_PART = (
    "x_*",
    "X_*",
    "*_x",
    "*_X",
    "*X",
    "*_images",
    "*_data",
    "*_features",
    "*_inputs",
    "images_*",
    "data_*",
)
_LABELS_OF_PART = ("y_*", "Y_*", "*_y", "*_Y", "*y", "*Y", "*_labels", "*_label", "*_targets", "labels_*", "target_*")
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

    @classmethod
    def of_sparse(cls, matrix: Any) -> ArrayColumn:
        """Return the column of a sparse matrix or array of scipy in memory, of whatever format, whose blocks are dense.

        Raises `DataError` if it has not two axes.
        """
        if len(matrix.shape) != 2:
            raise DataError(f"a sparse array of shape {matrix.shape} is no matrix")
        rows = matrix.tocsr()

        def blocks(size: int) -> Iterator[npt.NDArray[Any]]:
            for start in range(0, rows.shape[0], size):
                yield rows[start : start + size].toarray()

        return cls(rows.shape, rows.dtype, blocks)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def is_scipy_sparse(array: object) -> bool:
    """Return whether an object is a sparse matrix or array of scipy. (Asking scipy would import it.)"""
    return hasattr(array, "tocsr") and hasattr(array, "nnz")


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
    if (found := usual_name(names, usual)) is not None:
        return found
    raise UsageError(
        f"it is not clear which array holds the {what}; arrays: {', '.join(names) or 'none'}",
        hint=f"name it with {option}",
        file=file,
    )


def usual_name(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """Return the first of the usual names among ``names``, or else the only field ``struct.field`` of such a name."""
    for name in usual:
        if name in names:
            return name
    for name in usual:
        within = [each for each in names if each.rpartition(".")[2] == name]
        if len(within) == 1:
            return within[0]
    return None


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
        allowed = "biufUSM" if name == label else "biufmM"
        if array.dtype.hasobject:
            hint = "save plain numbers or strings"
            raise DataError("holds Python objects, which are never unpickled", hint=hint, file=file, column=name)
        if array.dtype.kind not in allowed:
            raise DataError(f"expected numbers, found {_shown(array.dtype)}", file=file, column=name)
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
                chunk[name] = plain_block(block)
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


def plain_block(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array in this machine's byte order, and as float64 where its floats are longer."""
    if block.dtype.kind == "f" and block.dtype.itemsize > 8:
        return block.astype(np.float64)
    return block if block.dtype.isnative else block.astype(block.dtype.newbyteorder("="))


def _shown(dtype: np.dtype[Any]) -> str:
    return "a structured array" if dtype.names else str(dtype)


def structured_table(file: str, array: ArrayColumn) -> Table:
    """Return a table with a column for each field of a structured array of one axis, as a file with a header has them.

    A field with a shape is a column of vectors. Raises `DataError` for other arrays and for fields of Python objects.
    """
    if len(array.shape) != 1:
        raise DataError(f"is a structured array of shape {array.shape}, it must have one axis", file=file)
    kinds: dict[str, np.dtype[Any]] = {name: array.dtype[name] for name in array.dtype.names or ()}
    for name, kind in kinds.items():
        if kind.hasobject:
            hint = "save plain numbers or strings"
            raise DataError("holds Python objects, which are never unpickled", hint=hint, file=file, column=name)
    shapes = {name: kind.shape for name, kind in kinds.items() if math.prod(kind.shape) != 1}

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        for name in roles:
            allowed = "biufmM" if name in shapes else "biufUSM" if roles[name] != "number" else "biufmM"
            if kinds[name].base.kind not in allowed:
                raise DataError(f"expected numbers, found {kinds[name].base}", file=file, column=name)
        for block in array.blocks(rows_per_chunk(array.row_bytes)):
            shaped = {name: block[name].reshape(len(block), *([-1] if name in shapes else [])) for name in roles}
            yield {name: plain_block(np.ascontiguousarray(column)) for name, column in shaped.items()}

    types = {name: kind.base.name for name, kind in kinds.items()}
    return Table(file, tuple(kinds), chunks, shapes, types, rows=array.shape[0])


Turn: TypeAlias = Callable[[str, Mapping[str, ArrayColumn], Sequence[str], ReadOptions], Mapping[str, ArrayColumn]]
"""Puts the channels of a file's images first; its third argument names the features
(`nnlib.data.importing.channels.with_channels_first`)."""


def keyed_tables(file: str, arrays: Mapping[str, ArrayColumn], options: ReadOptions, turn: Turn) -> list[Table]:
    """Return the tables of named arrays, whose features and label have the names in ``options`` or the usual ones.

    ``turn`` gets the features before they are used. That is one table, or one for each part of the rows where arrays
    have names such as ``x_train`` and ``x_test`` alone; several get an extra column ``split``. Raises `UsageError` if
    it is not clear which arrays are meant, and `DataError` for arrays that cannot be used.
    """
    named = [name for name in options.likely_features if name in arrays]
    if options.features or options.label or named or any(name in arrays for name in FEATURES):
        return [_keyed_table(file, arrays, options, turn)]
    parts = _parts(list(arrays))
    if parts:
        arrays = turn(file, arrays, [features for _, features, _ in parts], options)
    return [_part_table(file, arrays, *part, several=len(parts) > 1) for part in parts] or [
        _keyed_table(file, arrays, options, turn)
    ]


def _parts(names: Sequence[str]) -> list[tuple[str, str, str | None]]:
    """Return the value of the split column, the features and the labels of each part, the training rows first."""
    parts: dict[str, tuple[str, str, str | None]] = {}
    for part, value in PARTS.items():
        features = [name.replace("*", part) for name in _FEATURES_OF_PART if name.replace("*", part) in names]
        labels = [name.replace("*", part) for name in _LABELS_OF_PART if name.replace("*", part) in names]
        if features and value not in parts:
            parts[value] = (value, features[0], labels[0] if labels else None)
    return list(parts.values())


def _part_table(
    file: str, arrays: Mapping[str, ArrayColumn], part: str, features: str, label: str | None, *, several: bool
) -> Table:
    chosen = {"x": arrays[features]} | ({"y": arrays[label]} if label else {})
    if several:
        chosen["split"] = ArrayColumn.of(np.broadcast_to(np.array(part), arrays[features].shape[:1]))
    return array_table(file, chosen, ["x"], "y" if label else None, ("split",) if several else ())


def _keyed_table(file: str, arrays: Mapping[str, ArrayColumn], options: ReadOptions, turn: Turn) -> Table:
    names = list(arrays)
    features = list(options.features) or [name for name in options.likely_features if name in names]
    features = features or [choose_array(names, None, FEATURES, "features", "--features", file)]
    for name in features:
        choose_array(names, name, (), "features", "--features", file)
    label: str | None = None
    labels = (options.likely_label, *LABELS) if options.likely_label else LABELS
    rest = [name for name in names if name not in features]
    if options.label is not None or usual_name(rest, labels) is not None:
        label = choose_array(rest, options.label, labels, "labels", "--label", file)
    return array_table(file, turn(file, arrays, features, options), features, label)
