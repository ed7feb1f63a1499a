"""Read NumPy ``.npy`` and ``.npz`` files, as a stream and without unpickling anything."""

from __future__ import annotations

import io
import math
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError, UsageError
from nnlib.data.importing.channels import with_channels_first
from nnlib.data.importing.formats.arrays import ArrayColumn, array_table, keyed_tables, structured_table
from nnlib.data.importing.formats.sparse_files import is_sparse, sparse_table
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.read_options import ReadOptions

_MOST_HEADER = 10_000
"""The most bytes of a header: numpy parses no longer one."""
_HEADERS: dict[tuple[int, int], tuple[int, Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype[Any]]]]] = {
    (1, 0): (2, np.lib.format.read_array_header_1_0),
    (2, 0): (4, np.lib.format.read_array_header_2_0),
}


def open_npz(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open ``.npz`` files. Raises `DataError` for damaged files and `UsageError` if features or label are not clear."""
    return [table for file in files for table in _npz_tables(file, options)]


def _npz_tables(file: str, options: ReadOptions) -> list[Table]:
    members = _members(file)
    if is_sparse(members):
        labels = options.label if (options.label or "").endswith(".npy") else None
        return [
            sparse_table(file, members, options.label, None if labels is None else _column(labels, _mapped(labels)))
        ]
    structured = next(iter(members.values())) if len(members) == 1 else None
    if structured is not None and structured.dtype.names:
        return [structured_table(file, structured)]
    return keyed_tables(file, members, options, with_channels_first)


def open_npy(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open ``.npy`` files, a feature matrix each. The label is another file (``--label y.npy``) or a column number.

    Raises `DataError` for damaged files and `UsageError` for a label that does not fit.
    """
    tables = []
    for file in files:
        matrix = _mapped(file)
        if matrix.dtype.names:
            tables.append(structured_table(file, _column(file, matrix)))
        elif options.label is None:
            tables.append(array_table(file, _images(file, matrix, options), ["x"], None))
        elif options.label.endswith(".npy"):
            if len(files) > 1:
                raise UsageError("a label file goes with one feature file only", file=options.label)
            labels = _column(options.label, _mapped(options.label))
            tables.append(array_table(file, _images(file, matrix, options) | {"y": labels}, ["x"], "y"))
        else:
            tables.append(_with_label_column(file, matrix, options.label))
    return tables


def _images(file: str, matrix: npt.NDArray[Any], options: ReadOptions) -> dict[str, ArrayColumn]:
    return with_channels_first(file, {"x": _column(file, matrix)}, ["x"], options)


def _with_label_column(file: str, matrix: npt.NDArray[Any], label: str) -> Table:
    width = matrix.shape[1] if matrix.ndim == 2 else 0
    try:
        column = range(width)[int(label)]
    except (ValueError, IndexError):
        raise UsageError(
            f"--label {label}: a .npy file needs a column number below {width} (-1: the last) or a .npy file of labels",
            file=file,
        ) from None
    arrays = {
        "x": _column(file, matrix, (width - 1,), lambda block: np.delete(block, column, axis=1)),
        "y": _column(file, matrix, (), lambda block: block[:, column].copy()),
    }
    return array_table(file, arrays, ["x"], "y")


def _column(
    file: str,
    matrix: npt.NDArray[Any],
    row_shape: tuple[int, ...] | None = None,
    part: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = np.array,
) -> ArrayColumn:
    """Return the column that has ``part`` (a copy) of each block of rows, of shape ``row_shape`` per row.

    The file is mapped once per block, because the pages read stay in memory while it is mapped.
    """

    def blocks(rows: int) -> Iterator[npt.NDArray[Any]]:
        for start in range(0, len(matrix), rows):
            yield part(_mapped(file)[start : start + rows])

    shape = matrix.shape if row_shape is None else (matrix.shape[0], *row_shape)
    return ArrayColumn(shape, matrix.dtype, blocks)


def _mapped(file: str) -> npt.NDArray[Any]:
    try:
        with Path(file).open("rb") as stream:
            shape, fortran, dtype = _header(stream)
            offset, size = stream.tell(), math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError("object array")
        if Path(file).stat().st_size < offset + size:
            raise ValueError(f"its header promises {offset + size} bytes, it has {Path(file).stat().st_size}")
        if not size:
            return np.empty(shape, dtype)
        return np.memmap(file, dtype, "r", offset, shape, order="F" if fortran else "C")
    except (ValueError, EOFError, OSError, OverflowError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: str, error: Exception) -> DataError:
    pickled = "object" in str(error).lower() or "pickle" in str(error).lower()
    return DataError(
        "holds Python objects, which are never unpickled" if pickled else f"is not a readable NumPy file ({error})",
        hint="save plain numbers or strings" if pickled else None,
        file=file,
    )


def _members(file: str) -> dict[str, ArrayColumn]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, OSError) as error:
        raise _unreadable(file, error) from None
    with archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        return {info.filename.removesuffix(".npy"): _member(file, archive, info) for info in members}


def _member(file: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayColumn:
    """Return one array of an archive, after its header was compared with its size."""
    name = info.filename.removesuffix(".npy")
    try:
        with archive.open(info) as stream:
            shape, fortran, dtype = _header(stream)
            offset = stream.tell()
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise _unreadable(f"{file}:{name}", error) from None
    expected = offset + math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and info.file_size != expected:
        raise DataError(f"holds {info.file_size} bytes, its header promises {expected}", file=f"{file}:{name}")

    def blocks(rows: int) -> Iterator[npt.NDArray[Any]]:
        if dtype.hasobject:
            raise _unreadable(f"{file}:{name}", ValueError("object array"))
        try:
            with zipfile.ZipFile(file) as reopened, reopened.open(info) as stream:
                stream.read(offset)
                if not shape:
                    yield np.frombuffer(stream.read(), dtype).reshape(())
                    return
                if fortran and len(shape) > 1:
                    yield from _column_major(stream, shape, dtype, rows)
                    return
                row_bytes = math.prod(shape[1:]) * dtype.itemsize
                for start in range(0, shape[0], rows):
                    count = min(rows, shape[0] - start)
                    data = stream.read(count * row_bytes)
                    yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise _unreadable(f"{file}:{name}", error) from None

    return ArrayColumn(shape, dtype, blocks)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether the array is stored column by column, and dtype. (numpy would read a header of any
    length.)"""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"format version {version}")
    digits, read = _HEADERS[version]
    size = stream.read(digits)
    length = int.from_bytes(size, "little")
    if length > _MOST_HEADER:
        raise ValueError(f"its header has {length} bytes")
    try:
        with warnings.catch_warnings(action="ignore"):  # numpy warns of what Python 2 wrote
            shape, fortran, dtype = read(io.BytesIO(size + stream.read(length)))
    except Exception as error:  # numpy parses the header as Python source, where anything may go wrong
        raise ValueError(f"its header is garbled: {error}") from None
    if min(shape, default=0) < 0:
        raise ValueError(f"its header has the shape {shape}")
    return shape, fortran, dtype


def _column_major(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], rows: int
) -> Iterator[npt.NDArray[Any]]:
    """Yield rows of an array stored column by column: from a temporary file, because its rows are spread over it
    all."""
    with tempfile.TemporaryFile() as unpacked:
        shutil.copyfileobj(stream, unpacked)
        unpacked.flush()
        for start in range(0, shape[0], rows):
            array = np.memmap(unpacked, dtype, "r", shape=shape, order="F")  # anew: see _column
            yield np.array(array[start : start + rows], order="C")
