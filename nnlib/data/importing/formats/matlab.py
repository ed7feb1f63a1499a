"""Read numeric matrices from MATLAB and Octave ``.mat`` files of versions 4 to 7 (not 7.3, which is HDF5), as a stream.

The formats are those of MathWorks' "MAT-File Format" (level 5, which versions 5 to 7 write, and its appendix on
version 4). They are read here, not by scipy: its reader is made for files one trusts, and a few flipped bits crash it.
"""

from __future__ import annotations

import contextlib
import math
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import DataError
from nnlib.data.importing.formats.arrays import FEATURES, LABELS, ArrayColumn, keyed_tables
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.read_options import ReadOptions

_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STORED_4 = {0: "f8", 1: "f4", 2: "i4", 3: "i2", 4: "u2", 5: "u1"}
_OTHERS = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_DOUBLE = np.dtype("f8")
_MOST = 4096
"""The most bytes of a name or of a list of sides; MATLAB's names have at most 63."""
_BLOCK = 1 << 16


@dataclass(frozen=True)
class _Variable:
    """A matrix in a file.

    ``other``: what it is, if its values are no plain numbers; then only the name is known. ``start``: the byte at which
    its numbers begin, in the file or, where ``packed`` is the (start, length) of a compressed part of the file, in the
    decompressed part. ``stored``: their type there. ``dtype``: their type in MATLAB.
    """

    name: str
    other: str | None
    shape: tuple[int, ...] = ()
    stored: np.dtype[Any] = _DOUBLE
    dtype: np.dtype[Any] = _DOUBLE
    start: int = 0
    packed: tuple[int, int] | None = None

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.stored.itemsize


class _Bytes:
    """The bytes of a stream from its position on, decompressed if ``packed`` is the length of a compressed part.

    ``at`` is the position: in the file, or in the decompressed part.
    """

    def __init__(self, stream: IO[bytes], packed: int | None = None) -> None:
        self._stream, self._left = stream, packed
        self._inflater = zlib.decompressobj()
        self._waiting = b""
        self.at = 0 if packed is not None else stream.tell()

    def take(self, size: int) -> bytes:
        """Return exactly ``size`` bytes. Raises `EOFError` if there are fewer."""
        data = self.some(size)
        while len(data) < size:
            more = self.some(size - len(data))
            if not more:
                raise EOFError("it ends early")
            data += more
        return data

    def some(self, size: int) -> bytes:
        """Return at most ``size`` bytes, none at the end."""
        data = self._stream.read(size) if self._left is None else self._inflated(size)
        self.at += len(data)
        return data

    def _inflated(self, size: int) -> bytes:
        assert self._left is not None
        while size and not self._inflater.eof:
            packed = self._waiting or self._stream.read(min(self._left, _BLOCK))
            self._left -= 0 if self._waiting else len(packed)
            data = self._inflater.decompress(packed, size)
            self._waiting = self._inflater.unconsumed_tail
            if data:
                return data
            if not packed and not self._inflater.eof:
                raise EOFError("its compressed data ends early")
        return b""


def open_mat(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open MATLAB files. Raises `DataError` for files that are damaged or hold no numeric matrix of the names
    wanted."""
    return [table for file in files for table in _open(file, options)]


def _open(file: str, options: ReadOptions) -> list[Table]:
    with _explained(file), Path(file).open("rb") as stream:
        variables = {variable.name: variable for variable in _variables(stream, Path(file).stat().st_size)}
    if not variables:
        raise DataError("holds no arrays", file=file)
    for name in [name for name in (*options.features, options.label) if name] or [*FEATURES, *LABELS]:
        if name in variables and (other := variables[name].other):
            raise DataError(f"expected a numeric matrix, found a {other} array", file=file, column=name)
    columns = {name: _column(file, variable) for name, variable in variables.items() if variable.other is None}
    return keyed_tables(file, columns, options)


@contextlib.contextmanager
def _explained(file: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, EOFError, OverflowError, struct.error, zlib.error) as error:
        raise DataError(f"is not a readable .mat file ({error})", file=file) from None


def _column(file: str, variable: _Variable) -> ArrayColumn:
    shape = variable.shape
    if len(shape) == 2 and shape[0] == 1:
        shape = shape[::-1]  # MATLAB knows no vectors: a row of labels is a 1 x n matrix

    def blocks(rows: int) -> Iterator[npt.NDArray[Any]]:
        """Yield rows of the matrix. It is stored column by column, so its rows are spread over the whole file and it is
        mapped; once per block, because the pages read stay in memory while it is mapped."""
        with _explained(file), _unpacked(file, variable) as (source, start):
            for first in range(0, shape[0], rows):
                array = np.memmap(source, variable.stored, "r", start, shape, order="F")
                yield np.array(array[first : first + rows], variable.dtype, order="C")

    return ArrayColumn(shape, variable.dtype, blocks)


@contextlib.contextmanager
def _unpacked(file: str, variable: _Variable) -> Iterator[tuple[Any, int]]:
    """Return a file that can be mapped and the byte at which the variable's numbers begin in it."""
    if variable.packed is None:
        yield file, variable.start
        return
    with tempfile.TemporaryFile() as unpacked:
        with Path(file).open("rb") as stream:
            stream.seek(variable.packed[0])
            data = _Bytes(stream, variable.packed[1])
            data.take(variable.start)
            left = variable.bytes
            while left:
                part = data.take(min(left, _BLOCK))
                unpacked.write(part)
                left -= len(part)
            if len(data.some(_MOST)) >= 8:  # padding may follow; reading to the end checks the checksum
                raise ValueError(f"variable {variable.name} goes on after its numbers")
        unpacked.flush()
        yield unpacked, 0


def _variables(stream: IO[bytes], size: int) -> Iterator[_Variable]:
    head = stream.read(128)
    if 0 in head[:4]:  # never so in the text that a level 5 file begins with
        yield from _variables_4(stream, size)
        return
    order = {b"IM": "<", b"MI": ">"}.get(head[126:])
    if order is None:
        raise ValueError("it has no MATLAB header")
    version = struct.unpack(order + "H", head[124:126])[0] >> 8
    if version != 1:
        hint = "save it in MATLAB with save(..., '-v7')"
        raise DataError(f"is a version 7.3 (HDF5) file, or of another version ({version})", hint=hint, file=stream.name)
    at = 128
    while at < size:
        stream.seek(at)
        kind, length = struct.unpack(order + "2I", _Bytes(stream).take(8))
        at += 8 + length
        if at > size:
            raise EOFError(f"{length} bytes are promised and {size - at + length} are left")
        if kind not in (_MATRIX, _COMPRESSED):
            continue
        packed = (at - length, length) if kind == _COMPRESSED else None
        data = _Bytes(stream, None if packed is None else length)
        if packed is not None and struct.unpack(order + "2I", data.take(8))[0] != _MATRIX:
            continue
        variable = _matrix(data, order, packed)
        if packed is None and variable.other is None and variable.start + variable.bytes > at:
            raise ValueError(f"variable {variable.name} goes on after its end")
        if variable.name:  # the variable of MATLAB's workspace has none
            yield variable


def _element(data: _Bytes, order: str) -> tuple[int, int, int]:
    """Return type, length and start of the element that begins here. The data of a small one is the second half of its
    tag."""
    kind, length = struct.unpack(order + "2I", data.take(8))
    return (kind & 0xFFFF, kind >> 16, data.at - 4) if kind >> 16 else (kind, length, data.at)


def _small(data: _Bytes, order: str) -> bytes:
    """Return the content of the element that begins here, which has few bytes."""
    kind, length = struct.unpack(order + "2I", tag := data.take(8))
    if kind >> 16:
        return tag[4 : 4 + (kind >> 16)]
    if length > _MOST:
        raise ValueError(f"its header has an element of {length} bytes")
    return data.take(-(-length // 8) * 8)[:length]


def _matrix(data: _Bytes, order: str, packed: tuple[int, int] | None) -> _Variable:
    """Read the header of a matrix, from its flags to the tag of its numbers."""
    flags = struct.unpack(order + "I", _small(data, order)[:4])[0]
    kind = flags & 0xFF
    if kind == 17:  # an object of a class: no sides, its name comes at once
        return _Variable(_small(data, order).decode("utf-8", "replace"), "object")
    sides = _small(data, order)
    shape = struct.unpack(f"{order}{len(sides) // 4}i", sides)
    name = _small(data, order).decode("utf-8", "replace")
    if kind not in _CLASSES or flags & _COMPLEX:
        return _Variable(name, "complex" if kind in _CLASSES else _OTHERS.get(kind, f"class {kind}"))
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"variable {name} has the sides {shape}")
    stored_as, length, start = _element(data, order)
    if stored_as not in _STORED:
        raise ValueError(f"variable {name} has numbers of type {stored_as}")
    stored, dtype = np.dtype(order + _STORED[stored_as]), np.dtype("?" if flags & _LOGICAL else _CLASSES[kind])
    if dtype.kind != "f" and stored.kind == "f":
        raise ValueError(f"variable {name} of {dtype} is stored as {stored}")
    variable = _Variable(name, None, shape, stored, dtype, start, packed)
    if variable.bytes != length:
        raise ValueError(f"variable {name} of {' x '.join(map(str, shape))} {stored} has {length} bytes")
    return variable


def _variables_4(stream: IO[bytes], size: int) -> Iterator[_Variable]:
    at = 0
    while at < size:
        stream.seek(at)
        head = _Bytes(stream).take(20)
        order = "<" if 0 <= struct.unpack("<i", head[:4])[0] < 5000 else ">"
        kind, rows, columns, imaginary, length = struct.unpack(order + "5i", head)
        machine, stored_as, matrix = kind // 1000, kind // 10 % 10, kind % 10
        if machine != (order == ">") or kind // 100 % 10 or stored_as not in _STORED_4 or matrix > 2:
            raise ValueError(f"it begins neither as version 4 nor as a later one ({kind})")
        if min(rows, columns, length) < 0 or length > _MOST:
            raise ValueError(f"it has a matrix of {rows} x {columns} with a name of {length} bytes")
        name = _Bytes(stream).take(length).rstrip(b"\0").decode("latin-1")
        stored = np.dtype(order + _STORED_4[stored_as])
        other = ("complex" if imaginary else None, "char", "sparse")[matrix]
        variable = _Variable(name, other, (rows, columns), stored, stored.newbyteorder("="), at + 20 + length)
        at = variable.start + variable.bytes * (2 if imaginary else 1)
        if at > size:
            raise EOFError(f"variable {name} has {variable.bytes} bytes, the file ends {at - size} before")
        if name:
            yield variable
