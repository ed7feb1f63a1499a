"""Read the matrices that `scipy.sparse.save_npz` writes (CSR, CSC and COO), as a stream of dense rows.

Entries that are stored by row are read from front to end. Others are first sorted by row into a temporary file: ranges
of rows (buckets) with about as many entries each as fit in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError, UsageError
from nnlib.data.columns import Columns
from nnlib.data.importing.formats.arrays import ArrayColumn, plain_block
from nnlib.data.importing.formats.table import Role, Table, rows_per_chunk

ENTRIES = 1 << 19
"""Entries read at a time, and about as many in a bucket."""

_POINTERS = {"csr": ("indptr", "indices"), "csc": ("indptr", "indices"), "coo": ("row", "col")}

Entries = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[Any]]
"""Rows, columns and values of some entries, shape (n,) each."""


def is_sparse(members: Mapping[str, ArrayColumn]) -> bool:
    """Return whether the arrays of a file are those of one sparse matrix."""
    return {"format", "shape", "data"} <= set(members)


def sparse_table(file: str, members: Mapping[str, ArrayColumn], label: str | None, labels: ArrayColumn | None) -> Table:
    """Return the table of a sparse matrix: its vector column ``x`` and, if there is a label, ``y``.

    ``label``: the number of the matrix's column that holds it, if ``labels``, the array of a label file, is None.
    Raises `DataError` for damaged matrices and other formats, and `UsageError` for a label that does not fit.
    """
    rows, width = _shape(file, members["shape"])
    kind = _text(members["format"])
    if kind not in _POINTERS or any(name not in members for name in _POINTERS[kind]):
        raise DataError(
            f"is a sparse matrix of the format {kind!r}",
            hint="save it as CSR: save_npz(file, matrix.tocsr())",
            file=file,
        )
    dtype = members["data"].dtype
    if dtype.kind not in "biuf":
        raise DataError(f"expected numbers, found {dtype}", file=file, column="data")
    if labels is not None and labels.shape[:1] != (rows,):
        raise DataError(f"has {labels.shape[0] if labels.shape else 0} rows, the matrix has {rows}", file=label)
    position = None if label is None or labels is not None else _label_column(file, label, width)

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        size = rows_per_chunk(width * dtype.itemsize)
        y = labels.blocks(size) if labels is not None and "y" in roles else None
        for block in dense_blocks(file, members, kind, (rows, width), size):
            block = plain_block(block)
            chunk: dict[str, Any] = {} if y is None else {"y": plain_block(next(y))}
            if position is not None:
                chunk["y"], block = block[:, position].copy(), np.delete(block, position, axis=1)
            chunk["x"] = block
            yield {name: chunk[name] for name in roles}

    has_label = label is not None
    columns, features = ("x", "y") if has_label else ("x",), width - (position is not None)
    types = dict.fromkeys(columns, dtype.name)
    return Table(file, columns, chunks, {"x": (features,)}, types, "y" if has_label else None, ("x",), rows=rows)


def _shape(file: str, member: ArrayColumn) -> tuple[int, int]:
    shape = [int(side) for block in member.blocks(8) for side in block] if member.dtype.kind in "iu" else []
    if len(shape) != 2 or min(shape) < 0:
        raise DataError(f"is a sparse array of the shape {shape}: it must have two axes", file=file)
    return shape[0], shape[1]


def _text(member: ArrayColumn) -> str:
    (block,) = member.blocks(1)
    value = block.reshape(-1)[:1].tolist()
    return value[0].decode("latin-1") if value and isinstance(value[0], bytes) else str(*value)


def _label_column(file: str, label: str, width: int) -> int:
    try:
        return range(width)[int(label)]
    except (ValueError, IndexError):
        raise UsageError(
            f"--label {label}: a sparse matrix needs a column number below {width} or a .npy file of labels",
            hint="-1 is the last column",
            file=file,
        ) from None


def dense_blocks(
    file: str, members: Mapping[str, ArrayColumn], kind: str, shape: tuple[int, int], size: int
) -> Iterator[npt.NDArray[Any]]:
    """Yield a sparse matrix as dense blocks of ``size`` rows (the last may be smaller); repeated entries are added up.

    ``members``: the arrays that `scipy.sparse` has for its format ``kind`` (csr, csc or coo), by name. Raises
    `DataError` for entries outside the matrix.
    """
    rows, width = shape
    entries = _checked(file, _stored(file, members, kind, shape), shape)
    waiting: list[Entries] = []
    start = 0
    with tempfile.TemporaryFile() as buckets:
        for part in entries if kind == "csr" else _sorted_by_row(entries, rows, members["data"].shape[0], buckets):
            waiting.append(part)
            complete = int(part[0][-1])  # later entries are of this row or behind it
            while start + size <= complete:
                block, waiting = _filled(waiting, start, min(size, rows - start), width, members["data"].dtype)
                yield block
                start += size
        while start < rows:
            block, waiting = _filled(waiting, start, min(size, rows - start), width, members["data"].dtype)
            yield block
            start += size


def _filled(
    waiting: list[Entries], start: int, count: int, width: int, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[Any], list[Entries]]:
    """Return the dense block of ``count`` rows from ``start``, and the entries behind it."""
    block = np.zeros(count * width, dtype)
    left: list[Entries] = []
    for rows, columns, values in waiting:
        end = int(np.searchsorted(rows, start + count))
        at = (rows[:end] - start) * width + columns[:end]
        if (np.diff(at) > 0).all() and not block[at].any():
            block[at] = values[:end]
        else:
            np.add.at(block, at, values[:end])
        if end < len(rows):
            left.append((rows[end:], columns[end:], values[end:]))
    return block.reshape(count, width), left


def _checked(file: str, entries: Iterator[Entries], shape: tuple[int, int]) -> Iterator[Entries]:
    for rows, columns, values in entries:
        if not len(rows):
            continue
        for indices, side, what in ((rows, shape[0], "row"), (columns, shape[1], "column")):
            if indices.min() < 0 or indices.max() >= side:
                raise DataError(f"has an entry outside its {side} {what}s", file=file)
        yield rows, columns, values


def _stored(file: str, members: Mapping[str, ArrayColumn], kind: str, shape: tuple[int, int]) -> Iterator[Entries]:
    """Yield the entries in the order they are stored in."""
    first, second = (members[name] for name in _POINTERS[kind])
    for name, member in (("data", members["data"]), *zip(_POINTERS[kind], (first, second), strict=True)):
        if len(member.shape) != 1 or (name != "data" and member.dtype.kind not in "iu"):
            raise DataError(f"expected a list of numbers, found {member.dtype} {member.shape}", file=file, column=name)
    if second.shape != members["data"].shape or (kind == "coo" and first.shape != second.shape):
        raise DataError(f"has {members['data'].shape[0]} values for {second.shape[0]} indices", file=file)
    if kind == "coo":
        for row, column, values in zip(
            *(each.blocks(ENTRIES) for each in (first, second, members["data"])), strict=True
        ):
            yield row.astype(np.int64), column.astype(np.int64), values
        return
    lines = shape[0] if kind == "csr" else shape[1]
    if first.shape[0] != lines + 1:
        raise DataError(
            f"has {first.shape[0]} pointers for {lines} {'rows' if kind == 'csr' else 'columns'}", file=file
        )
    numbered = _in_blocks(_numbered(file, first, second.shape[0]))
    streams = (numbered, second.blocks(ENTRIES), members["data"].blocks(ENTRIES))
    for line, index, values in zip(*streams, strict=True):
        other = index.astype(np.int64)
        yield (line, other, values) if kind == "csr" else (other, line, values)


def _in_blocks(arrays: Iterator[npt.NDArray[np.int64]]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the same numbers in arrays of `ENTRIES` (the last may be smaller)."""
    waiting = np.empty(0, np.int64)
    for array in arrays:
        waiting = np.concatenate([waiting, array])
        while len(waiting) >= ENTRIES:
            yield waiting[:ENTRIES]
            waiting = waiting[ENTRIES:]
    if len(waiting):
        yield waiting


def _numbered(file: str, pointers: ArrayColumn, entries: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the line (row of a CSR, column of a CSC matrix) of each entry, in arrays of at most `ENTRIES`."""
    before, line = 0, -1
    for block in pointers.blocks(ENTRIES):
        ends = block.astype(np.int64)
        if ends[0] < before or (np.diff(ends) < 0).any() or ends[-1] > entries or (line < 0 and ends[0] != 0):
            raise DataError("its pointers do not rise from 0 to the number of values", file=file, column="indptr")
        for start in range(before, int(ends[-1]), ENTRIES):
            positions = np.arange(start, min(start + ENTRIES, int(ends[-1])))
            yield line + np.searchsorted(ends, positions, side="right")
        before, line = int(ends[-1]), line + len(ends)
    if before != entries:
        raise DataError("its pointers do not rise from 0 to the number of values", file=file, column="indptr")


def _sorted_by_row(entries: Iterator[Entries], rows: int, count: int, buckets: IO[bytes]) -> Iterator[Entries]:
    """Yield all entries sorted by row, equal rows in their order, from a temporary file."""
    number = max(1, count // ENTRIES)
    width = -(-rows // number)
    parts: list[list[tuple[int, int, np.dtype[Any]]]] = [[] for _ in range(number)]
    for row, column, values in entries:
        order = np.argsort(row, kind="stable")
        row, column, values = row[order], column[order], values[order]
        bounds = np.searchsorted(row, np.arange(number + 1) * width)
        for bucket in np.flatnonzero(np.diff(bounds)):
            part = slice(bounds[bucket], bounds[bucket + 1])
            parts[bucket].append((buckets.tell(), part.stop - part.start, values.dtype))
            for array in (row[part], column[part], values[part]):
                buckets.write(array.tobytes())
    for written in parts:
        loaded = [_loaded(buckets, *where) for where in written]
        if loaded:
            row, column, values = (np.concatenate(arrays) for arrays in zip(*loaded, strict=True))
            order = np.argsort(row, kind="stable")
            yield row[order], column[order], values[order]


def _loaded(buckets: IO[bytes], start: int, count: int, dtype: np.dtype[Any]) -> Entries:
    buckets.seek(start)
    kinds = (np.dtype(np.int64), np.dtype(np.int64), dtype)
    row, column, values = (np.frombuffer(buckets.read(count * kind.itemsize), kind) for kind in kinds)
    return row, column, values
