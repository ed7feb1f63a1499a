"""The variables in MATLAB and Octave ``.mat`` files of versions 4 to 7: what they are, and where their values lie.

The formats are those of MathWorks' "MAT-File Format" (level 5, which versions 5 to 7 write, and its appendix on
version 4). They are read here, not by scipy: its reader is made for files one trusts, and a few flipped bits crash it.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, Literal

import numpy as np

from nnlib.core.errors import DataError

_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STORED_TEXT = {1: "i1", 2: "u1", 4: "u2", 16: "u1", 17: "u2", 18: "u4"}
_STORED_4 = {0: "f8", 1: "f4", 2: "i4", 3: "i2", 4: "u2", 5: "u1"}
_OTHERS = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL, _STRUCT, _CHAR, _SPARSE, _OBJECT = 1, 2, 4, 5, 17
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_DOUBLE = np.dtype("f8")
_MOST = 4096
"""The most bytes of a name or of a list of sides; MATLAB's names have at most 63."""
_MOST_NAMES = 1 << 20
_DEEPEST = 8
"""Structs within structs are read to this depth."""
_BLOCK = 1 << 16

Kind = Literal["numeric", "text", "cell", "sparse"]


@dataclass(frozen=True)
class Stored:
    """Numbers in a file: their type there, how many they are, and the byte at which they begin.

    That is counted in the file or, for a variable in a compressed part of it, in the decompressed part. ``content``:
    their bytes, if they are so few that they were read with their type.
    """

    dtype: np.dtype[Any]
    count: int
    start: int
    content: bytes | None = None

    @property
    def bytes(self) -> int:
        """The bytes of all numbers."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class Variable:
    """A variable of a file, or a field of a struct, ``struct.field``.

    - ``other``: what it is, if it cannot be used; then only the name is known
    - ``kind``: matrices of numbers or of characters, cell arrays, sparse matrices
    - ``stored``: its values, column by column; of a sparse matrix its row indices, column pointers and values; of a
      cell array only where the first cell begins
    - ``dtype``: the type of the values in MATLAB
    - ``order``: the byte order, ``<`` or ``>``; ``packed``: (start, length) of the compressed part it lies in
    - ``is_last``: nothing follows it in its part
    """

    name: str
    other: str | None
    shape: tuple[int, ...] = ()
    kind: Kind = "numeric"
    stored: tuple[Stored, ...] = ()
    dtype: np.dtype[Any] = _DOUBLE
    order: str = "<"
    packed: tuple[int, int] | None = None
    is_last: bool = True


class Bytes:
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

    def skip_to(self, position: int) -> None:
        """Go on to a position behind this one. Raises `EOFError` if it is not there, `ValueError` if it lies before."""
        if position < self.at:
            raise ValueError("an element goes on after its end")
        if self._left is None:
            self._stream.seek(position)
            self.at = position
        while self.at < position:
            self.take(min(_BLOCK, position - self.at))

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


def read_variables(stream: IO[bytes], size: int) -> Iterator[Variable]:
    """Yield the variables of a file of ``size`` bytes.

    Raises `DataError` for a version 7.3 file; `ValueError`, `EOFError`, `struct.error` and `zlib.error` for damage.
    """
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
        kind, length = struct.unpack(order + "2I", Bytes(stream).take(8))
        at += 8 + length
        if at > size:
            raise EOFError(f"{length} bytes are promised and {size - at + length} are left")
        if kind not in (_MATRIX, _COMPRESSED):
            continue
        packed = (at - length, length) if kind == _COMPRESSED else None
        data = Bytes(stream, None if packed is None else length)
        end = at
        if packed is not None:
            inner, inner_length = struct.unpack(order + "2I", data.take(8))
            if inner != _MATRIX:
                continue
            end = 8 + inner_length
        for variable in _matrix(data, order, packed, end):
            if variable.name:  # the variable of MATLAB's workspace has none
                yield variable


def cell_texts(data: Bytes, variable: Variable) -> Iterator[str]:
    """Yield the texts of a cell array, from `Bytes` at any position before it.

    Raises `ValueError` for a cell that holds no row of characters, and where `read_variables` does.
    """
    data.skip_to(variable.stored[0].start)
    for number in range(math.prod(variable.shape)):
        kind, length = struct.unpack(variable.order + "2I", data.take(8))
        end = data.at + length
        if kind != _MATRIX:
            raise ValueError(f"cell {number + 1} is an element of type {kind}")
        cell = next(_matrix(data, variable.order, variable.packed, end)) if length else Variable("", "an empty")
        sides = (*cell.shape, 0, 0)
        if cell.kind != "text" or cell.other or (math.prod(cell.shape) and sides[0] != 1):
            raise ValueError(f"cell {number + 1} holds {cell.other or cell.kind} values: each must hold one text")
        (stored,) = cell.stored
        yield decoded_text(data.take(stored.bytes) if stored.content is None else stored.content, stored.dtype)
        data.skip_to(end)


def decoded_text(content: bytes, stored: np.dtype[Any]) -> str:
    """Return the text of stored characters: UTF-8, UTF-16 or UTF-32, by the bytes of one."""
    codec = {1: "utf-8", 2: "utf-16", 4: "utf-32"}[stored.itemsize]
    return content.decode(codec + {"<": "-le", ">": "-be"}.get(stored.str[0], ""))


def _element(data: Bytes, order: str) -> tuple[int, int, int, bytes | None]:
    """Return type, length and start of the element that begins here, and the content of a small one: it is the second
    half of its tag."""
    kind, length = struct.unpack(order + "2I", tag := data.take(8))
    if kind >> 16:
        return kind & 0xFFFF, kind >> 16, data.at - 4, tag[4 : 4 + (kind >> 16)]
    return kind, length, data.at, None


def _small(data: Bytes, order: str, most: int = _MOST) -> bytes:
    """Return the content of the element that begins here, which has at most ``most`` bytes."""
    kind, length = struct.unpack(order + "2I", tag := data.take(8))
    if kind >> 16:
        return tag[4 : 4 + (kind >> 16)]
    if length > most:
        raise ValueError(f"its header has an element of {length} bytes")
    return data.take(-(-length // 8) * 8)[:length]


def _matrix(
    data: Bytes, order: str, packed: tuple[int, int] | None, end: int, prefix: str = "", depth: int = 0
) -> Iterator[Variable]:
    """Yield the variable of the matrix that begins here, whose end is known, or those of a struct's fields."""
    flags = struct.unpack(order + "I", _small(data, order)[:4])[0]
    kind = flags & 0xFF
    if kind == _OBJECT:  # no sides, its name comes at once
        yield Variable(prefix + _small(data, order).decode("utf-8", "replace"), "object")
        return
    sides = _small(data, order)
    shape = struct.unpack(f"{order}{len(sides) // 4}i", sides)
    name = prefix + _small(data, order).decode("utf-8", "replace")
    variable = Variable(name, None, shape, order=order, packed=packed, is_last=not depth)
    if flags & _COMPLEX or kind not in (*_CLASSES, _CELL, _STRUCT, _CHAR, _SPARSE):
        yield Variable(name, "complex" if flags & _COMPLEX else _OTHERS.get(kind, f"class {kind}"))
        return
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"variable {name} has the sides {shape}")
    if kind == _STRUCT:
        yield from _fields(data, variable, end, depth)
        return
    is_logical = bool(flags & _LOGICAL)
    if kind == _CELL:
        variable = replace(variable, kind="cell", stored=(Stored(np.dtype("u1"), 0, data.at),))
    elif kind == _SPARSE:
        variable = _sparse(data, variable, is_logical)
    elif kind == _CHAR:
        variable = replace(
            variable, kind="text", stored=(_numbers(data, variable, _STORED_TEXT),), dtype=np.dtype("U1")
        )
    else:
        stored, dtype = _numbers(data, variable, _STORED), np.dtype("?" if is_logical else _CLASSES[kind])
        if dtype.kind != "f" and stored.dtype.kind == "f":
            raise ValueError(f"variable {name} of {dtype} is stored as {stored.dtype}")
        if stored.count != math.prod(shape):
            size = " x ".join(map(str, shape))
            raise ValueError(f"variable {name} of {size} {stored.dtype} has {stored.bytes} bytes")
        variable = replace(variable, stored=(stored,), dtype=dtype)
    if any(stored.start + stored.bytes > end for stored in variable.stored):
        raise ValueError(f"variable {name} goes on after its end")
    yield variable


def _numbers(data: Bytes, variable: Variable, kinds: dict[int, str]) -> Stored:
    """Return the numbers of the element that begins here."""
    stored_as, length, start, content = _element(data, variable.order)
    if stored_as not in kinds:
        raise ValueError(f"variable {variable.name} has numbers of type {stored_as}")
    dtype = np.dtype(variable.order + kinds[stored_as])
    if length % dtype.itemsize:
        raise ValueError(
            f"variable {variable.name} of {' x '.join(map(str, variable.shape))} {dtype} has {length} bytes"
        )
    return Stored(dtype, length // dtype.itemsize, start, content)


def _sparse(data: Bytes, variable: Variable, is_logical: bool) -> Variable:
    """Return a sparse matrix: row indices, column pointers, values. There may be room for more values than it has."""
    rows = _numbers(data, variable, _STORED)
    _skip_over(data, rows)
    pointers = _numbers(data, variable, _STORED)
    if len(variable.shape) != 2 or pointers.count != variable.shape[1] + 1 or pointers.dtype.kind == "f":
        raise ValueError(f"variable {variable.name} has {pointers.count} column pointers")
    count = 0
    if pointers.content is None:
        data.skip_to(pointers.start + pointers.bytes - pointers.dtype.itemsize)
        count = int(np.frombuffer(data.take(pointers.dtype.itemsize), pointers.dtype)[0])
        data.skip_to(pointers.start + -(-pointers.bytes // 8) * 8)
    values = _numbers(data, variable, _STORED)
    if count > min(rows.count, values.count) or count < 0 or rows.dtype.kind == "f":
        raise ValueError(f"variable {variable.name} has {count} values, {rows.count} row indices")
    dtype = np.dtype("?") if is_logical else _DOUBLE
    stored = (replace(rows, count=count), pointers, replace(values, count=count))
    return replace(variable, kind="sparse", stored=stored, dtype=dtype)


def _skip_over(data: Bytes, stored: Stored) -> None:
    """Go on to the element behind these numbers: it begins at a multiple of 8 bytes. Few numbers lie in their tag."""
    if stored.content is None:
        data.skip_to(stored.start + -(-stored.bytes // 8) * 8)


def _fields(data: Bytes, variable: Variable, end: int, depth: int) -> Iterator[Variable]:
    """Yield the variables of a struct's fields, ``struct.field``; only structs that are no arrays have such."""
    if math.prod(variable.shape) != 1 or depth >= _DEEPEST:
        yield Variable(variable.name, "struct")
        return
    (width,) = struct.unpack(variable.order + "i", _small(data, variable.order)[:4])
    names = _small(data, variable.order, _MOST_NAMES)
    if width < 1:
        raise ValueError(f"variable {variable.name} has field names of {width} bytes")
    for at in range(0, len(names), width):
        kind, length = struct.unpack(variable.order + "2I", data.take(8))
        begin = data.at
        if kind != _MATRIX or begin + length > end:
            raise ValueError(f"variable {variable.name} goes on after its end")
        field = names[at : at + width].partition(b"\0")[0].decode("utf-8", "replace")
        if length:
            for inner in _matrix(data, variable.order, variable.packed, begin + length, depth=depth + 1):
                within = f"{variable.name}.{field}" if variable.name else field
                yield replace(inner, name=f"{within}.{inner.name}" if inner.name else within, is_last=False)
        data.skip_to(begin + length)


def _variables_4(stream: IO[bytes], size: int) -> Iterator[Variable]:
    at = 0
    while at < size:
        stream.seek(at)
        head = Bytes(stream).take(20)
        order = "<" if 0 <= struct.unpack("<i", head[:4])[0] < 5000 else ">"
        kind, rows, columns, imaginary, length = struct.unpack(order + "5i", head)
        machine, stored_as, matrix = kind // 1000, kind // 10 % 10, kind % 10
        if machine != (order == ">") or kind // 100 % 10 or stored_as not in _STORED_4 or matrix > 2:
            raise ValueError(f"it begins neither as version 4 nor as a later one ({kind})")
        if min(rows, columns, length) < 0 or length > _MOST:
            raise ValueError(f"it has a matrix of {rows} x {columns} with a name of {length} bytes")
        name = Bytes(stream).take(length).rstrip(b"\0").decode("latin-1")
        stored = Stored(np.dtype(order + _STORED_4[stored_as]), rows * columns, at + 20 + length)
        other = ("complex" if imaginary else None, None, "sparse")[matrix]
        is_text = matrix == 1
        dtype = np.dtype("U1") if is_text else stored.dtype.newbyteorder("=")
        whole = Variable(name, other, (rows, columns), "text" if is_text else "numeric", (stored,), dtype, order)
        at = stored.start + stored.bytes * (2 if imaginary else 1)
        if at > size:
            raise EOFError(f"variable {name} has {stored.bytes} bytes, the file ends {at - size} before")
        if name:
            yield whole
