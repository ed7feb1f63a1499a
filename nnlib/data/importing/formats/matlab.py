"""Read MATLAB and Octave ``.mat`` files of versions 4 to 7 (not 7.3, which is HDF5), as a stream.

Matrices of numbers, dense and sparse, are features or labels; character matrices and cell arrays of text are labels.
The fields of a struct are named ``struct.field``. Rows are samples; features whose last axis alone is as long as the
labels have their samples there.
"""

from __future__ import annotations

import contextlib
import math
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError
from nnlib.core.notes import note
from nnlib.data.importing.channels import with_channels_first
from nnlib.data.importing.formats.arrays import FEATURES, LABELS, ArrayColumn, keyed_tables, usual_name
from nnlib.data.importing.formats.matlab_variables import (
    Bytes,
    Stored,
    Variable,
    cell_texts,
    decoded_text,
    read_variables,
)
from nnlib.data.importing.formats.sparse_files import dense_blocks
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.read_options import ReadOptions

_NONE = Variable("", None)
_BLOCK = 1 << 16
_MOST_TEXT = 1 << 28
"""The most bytes of a character matrix: it is read as a whole."""


def open_mat(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open MATLAB files. Raises `DataError` for files that are damaged or hold no matrix of the names wanted."""
    return [table for file in files for table in _open(file, options)]


def _open(file: str, options: ReadOptions) -> list[Table]:
    with _explained(file), Path(file).open("rb") as stream:
        variables = {variable.name: variable for variable in read_variables(stream, Path(file).stat().st_size)}
    if not variables:
        raise DataError("holds no arrays", file=file)
    wanted = [name for name in (*options.features, options.label) if name] or [*FEATURES, *LABELS]
    for name in wanted:
        found = variables.get(name, _NONE)
        text = {"text": "char", "cell": "cell"}.get(found.kind)
        other = found.other or (text if name in options.features or name in FEATURES else None)
        if other:
            raise DataError(f"expected a numeric matrix, found a {other} array", file=file, column=name)
    columns = {name: _column(file, variable) for name, variable in variables.items() if variable.other is None}
    return keyed_tables(file, _samples_first(file, columns, variables, options), options, with_channels_first)


@contextlib.contextmanager
def _explained(file: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, EOFError, OverflowError, struct.error, zlib.error) as error:
        raise DataError(f"is not a readable .mat file ({error})", file=file) from None


def _column(file: str, variable: Variable) -> ArrayColumn:
    if variable.kind == "text":
        return _text_column(file, variable)
    if variable.kind == "cell":
        return _cell_column(file, variable)
    if variable.kind == "sparse":
        return _sparse_column(file, variable)
    return _matrix_column(file, variable, samples_last=False)


def _matrix_column(file: str, variable: Variable, *, samples_last: bool) -> ArrayColumn:
    sides = variable.shape
    if len(sides) == 2 and sides[0] == 1:
        sides = sides[::-1]  # MATLAB knows no vectors: a row of labels is a 1 x n matrix
    (stored,) = variable.stored

    def blocks(rows: int) -> Iterator[npt.NDArray[Any]]:
        """Yield rows of the matrix. It is stored column by column, so its rows are spread over the whole file and it is
        mapped; once per block, because the pages read stay in memory while it is mapped."""
        with _explained(file), _unpacked(file, variable, stored) as (source, start):
            for first in range(0, sides[-1] if samples_last else sides[0], rows):
                array = (
                    np.memmap(source, stored.dtype, "r", start, sides, order="F") if stored.count else np.empty(sides)
                )
                block = (
                    np.moveaxis(array[..., first : first + rows], -1, 0)
                    if samples_last
                    else array[first : first + rows]
                )
                yield np.array(block, variable.dtype, order="C")

    return ArrayColumn((sides[-1], *sides[:-1]) if samples_last else sides, variable.dtype, blocks)


def _samples_first(
    file: str, columns: Mapping[str, ArrayColumn], variables: Mapping[str, Variable], options: ReadOptions
) -> dict[str, ArrayColumn]:
    """Return the columns, those of features that have their samples last turned.

    Labels say it, or else ``options.feature_count``: features fit with the last axis, and with the first they do not.
    """
    label = next((name for name in (options.label, options.likely_label) if name in columns), None)
    label = label or usual_name(list(columns), LABELS)
    named = [name for name in options.features or options.likely_features if name in columns]
    usual = usual_name([name for name in columns if name != label], FEATURES)
    turned = dict(columns)
    for name in named or ([usual] if usual else []):
        shape = columns[name].shape
        if variables[name].kind != "numeric" or len(shape) < 2 or name == label:
            continue
        if label is not None:
            rows = math.prod(columns[label].shape)
            is_last = shape[0] != rows and shape[-1] == rows
        else:
            count = options.feature_count
            is_last = count is not None and math.prod(shape[1:]) != count and math.prod(shape[:-1]) == count
        if is_last:
            turned[name] = _matrix_column(file, variables[name], samples_last=True)
            note(f"{file}: the samples of {name} ({' x '.join(map(str, shape))}) are along its last axis")
    return turned


def _sparse_column(file: str, variable: Variable) -> ArrayColumn:
    rows, width = variable.shape

    def part(stored: Stored, dtype: np.dtype[Any]) -> ArrayColumn:
        def blocks(size: int) -> Iterator[npt.NDArray[Any]]:
            with _explained(file), Path(file).open("rb") as stream:
                data = _bytes_at(stream, variable, stored.start)
                for start in range(0, stored.count, size):
                    count = min(size, stored.count - start)
                    content = data.take(count * stored.dtype.itemsize)
                    yield np.frombuffer(content, stored.dtype).astype(dtype)

        return ArrayColumn((stored.count,), dtype, blocks)

    integer = np.dtype(np.int64)
    indices, pointers, values = variable.stored
    members = {
        "indices": part(indices, integer),
        "indptr": part(pointers, integer),
        "data": part(values, variable.dtype),
    }

    def dense(size: int) -> Iterator[npt.NDArray[Any]]:
        yield from dense_blocks(file, members, "csc", (rows, width), size)

    return ArrayColumn((rows, width), variable.dtype, dense)


def _text_column(file: str, variable: Variable) -> ArrayColumn:
    """Return the rows of a character matrix as texts; one row of characters as its characters."""
    rows, length = (math.prod(variable.shape), 1) if variable.shape[0] == 1 else (variable.shape[0], variable.shape[1])
    (stored,) = variable.stored

    def blocks(size: int) -> Iterator[npt.NDArray[Any]]:
        with _explained(file), Path(file).open("rb") as stream:
            if stored.bytes > _MOST_TEXT:
                raise ValueError(f"variable {variable.name} has {stored.bytes:,} bytes of text")
            content = _bytes_at(stream, variable, stored.start).take(stored.bytes)
            if stored.count == rows * length:
                codes = np.frombuffer(content, stored.dtype).astype(np.uint32)
            else:  # UTF-8, with characters of several bytes
                text = decoded_text(content, stored.dtype)
                codes = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint32)
            if len(codes) != rows * length or (codes > 0x10FFFF).any():
                raise ValueError(f"variable {variable.name} has {len(codes)} characters for {rows} x {length}")
            texts = np.ascontiguousarray(codes.reshape((rows, length), order="F")).view(f"U{length}").reshape(rows)
            for start in range(0, rows, size):
                yield texts[start : start + size]

    return ArrayColumn((rows,), np.dtype(f"U{max(1, length)}"), blocks)


def _cell_column(file: str, variable: Variable) -> ArrayColumn:
    """Return the texts of a cell array. A cell that holds none is an error when it is read."""
    rows = math.prod(variable.shape)

    def blocks(size: int) -> Iterator[npt.NDArray[Any]]:
        with Path(file).open("rb") as stream:
            try:
                texts = cell_texts(_bytes_at(stream, variable, 0), variable)
                for start in range(0, rows, size):
                    yield np.array([next(texts) for _ in range(min(size, rows - start))])
            except (ValueError, EOFError, struct.error, zlib.error) as error:
                raise DataError(f"is no cell array of texts ({error})", file=file, column=variable.name) from None

    return ArrayColumn((rows,), np.dtype("U1"), blocks)


def _bytes_at(stream: Any, variable: Variable, start: int) -> Bytes:
    """Return the bytes of the variable's part of the file, from ``start`` on."""
    if variable.packed is not None:
        stream.seek(variable.packed[0])
    data = Bytes(stream, None if variable.packed is None else variable.packed[1])
    data.skip_to(start)
    return data


@contextlib.contextmanager
def _unpacked(file: str, variable: Variable, stored: Stored) -> Iterator[tuple[Any, int]]:
    """Return a file that can be mapped and the byte at which the variable's numbers begin in it."""
    if variable.packed is None:
        yield file, stored.start
        return
    with tempfile.TemporaryFile() as unpacked:
        with Path(file).open("rb") as stream:
            data = _bytes_at(stream, variable, stored.start)
            left = stored.bytes
            while left:
                part = data.take(min(left, _BLOCK))
                unpacked.write(part)
                left -= len(part)
            rest = data.some(_BLOCK)
            if variable.is_last and len(rest) >= 8:  # padding may follow
                raise ValueError(f"variable {variable.name} goes on after its numbers")
            while rest:  # reading to the end checks the checksum
                rest = data.some(_BLOCK)
        unpacked.flush()
        yield unpacked, 0
