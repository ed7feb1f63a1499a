"""Arrow tables as `Table`s: what the formats have in common whose files hold typed, named columns.

Structs become a column for each of their fields, ``outer.inner``; lists of equal lengths, also nested, become vectors.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nnlib.core.errors import DataError
from nnlib.data.arrow import READ_ERRORS
from nnlib.data.arrow_types import is_bytes, is_list, is_number, plain_column, plain_type
from nnlib.data.columns import Columns, RowOrigin, to_numbers
from nnlib.data.importing.formats.table import Role, Table, rows_per_chunk
from nnlib.storage import file_at, has_scheme

ReadBatches = Callable[[int, Sequence[str]], Iterator[pa.RecordBatch]]
"""Yields all rows of some columns of the file, in order; takes the most rows of a batch."""


@contextlib.contextmanager
def opened_file(file: str, *, mapped: bool = False) -> Iterator[Any]:
    """Open a file at any address for random reads, as pyarrow's readers take it.

    ``mapped``: map a file that is on this machine into memory, for formats that are used as they lie there.
    """
    if has_scheme(file):
        folder, name = file_at(file)
        with folder.open(name) as stream:
            yield stream
    else:
        with pa.memory_map(file) if mapped else pa.OSFile(file) as source:
            yield source


@dataclass(frozen=True)
class _Leaf:
    """A column of a table: the field of a file's column that the names in ``path`` lead to."""

    path: tuple[str, ...]
    kind: pa.DataType

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the column of a batch; a missing struct has missing fields."""
        column = batch.column(self.path[0])
        for name in self.path[1:]:
            column = column.flatten()[column.type.get_field_index(name)]
        return column


def arrow_table(file: str, schema: pa.Schema, rows: int | None, read: ReadBatches) -> Table:
    """Return the table of a file with these columns. Raises `DataError` for columns of the same name.

    A column whose type is neither number, text nor vector is an error only once it is used.
    """
    leaves = {}
    for leaf in _leaves(schema):
        if leaf.name in leaves:
            raise DataError("has this column twice", hint="rename one", file=file, column=leaf.name)
        leaves[leaf.name] = leaf
    vectors = {name: _shape(leaf, read) for name, leaf in leaves.items() if _is_vector(leaf.kind)}
    shapes = {name: shape for name, shape in vectors.items() if shape is not None}

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        for name in roles:
            _check_type(file, leaves[name])
        size = rows_per_chunk(sum(8 * int(np.prod(shapes.get(name, (1,)))) for name in roles))
        needed = list(dict.fromkeys(leaves[name].path[0] for name in roles))
        start = 0
        try:
            for batch in read(size, needed):
                origin = RowOrigin(file, start)
                yield {name: _column(leaves[name].of(batch), name, shapes.get(name), origin) for name in roles}
                start += len(batch)
        except READ_ERRORS as error:
            raise DataError(f"is not readable ({error})", file=file) from None

    types = {name: str(_element(leaf.kind)) for name, leaf in leaves.items()}
    return Table(file, tuple(leaves), chunks, shapes, types, rows=rows, index=_index_columns(schema))


def _index_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that were the index of a data frame of pandas, which says so in the metadata."""
    try:
        described = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
        return tuple(name for name in described if isinstance(name, str) and name in schema.names)
    except (ValueError, AttributeError, TypeError):
        return ()


def _leaves(schema: pa.Schema) -> Iterator[_Leaf]:
    def within(path: tuple[str, ...], kind: pa.DataType) -> Iterator[_Leaf]:
        if pa.types.is_struct(kind) and kind.num_fields:
            for field in kind:
                yield from within((*path, field.name), field.type)
        else:
            yield _Leaf(path, kind)

    for field in schema:
        yield from within((field.name,), field.type)


def _element(kind: pa.DataType) -> pa.DataType:
    """Return the type of the single values in a column of numbers, text or (nested) lists."""
    kind = plain_type(kind)
    return _element(kind.value_type) if is_list(kind) else kind


def _is_vector(kind: pa.DataType) -> bool:
    return is_list(plain_type(kind)) and is_number(_element(kind))


def _check_type(file: str, leaf: _Leaf) -> None:
    kind = _element(leaf.kind)
    text = not is_list(plain_type(leaf.kind)) and (pa.types.is_string(kind) or is_bytes(kind))
    if not (text or is_number(kind)):
        raise DataError(
            f"columns of type {leaf.kind} cannot be used",
            hint="choose other columns with --features, or convert it to numbers or text",
            file=file,
            column=leaf.name,
        )


def _shape(leaf: _Leaf, read: ReadBatches) -> tuple[int, ...] | None:
    """Return the shape of a row of lists: that of the first row which has some, (0,) if none has. None without rows."""
    if isinstance(leaf.kind, pa.FixedShapeTensorType) and _is_in_order(leaf.kind.permutation):
        return tuple(leaf.kind.shape)
    sides, kind = [], plain_type(leaf.kind)
    while pa.types.is_fixed_size_list(kind):
        sides.append(kind.list_size)
        kind = plain_type(kind.value_type)
    if not is_list(kind):
        return tuple(sides)
    shape = None
    for batch in read(1, [leaf.path[0]]):
        column = leaf.of(batch).drop_null()
        if len(column):
            return _sides(column)
        shape = (0,)
    return shape


def _is_in_order(permutation: Sequence[int] | None) -> bool:
    return not permutation or list(permutation) == sorted(permutation)


def _sides(column: pa.Array) -> tuple[int, ...]:
    """Return the lengths of the first row's lists, the outermost first."""
    sides: list[int] = []
    column = plain_column(column)[:1]
    while is_list(column.type):
        sides.append(pc.list_value_length(column)[0].as_py() or 0)
        column = plain_column(column.flatten())[:1]
        if not len(column):
            break
    return tuple(sides)


def _column(column: pa.Array, name: str, shape: tuple[int, ...] | None, origin: RowOrigin) -> Any:
    if shape is not None:
        return _vectors(column, name, shape, origin)
    if is_bytes(plain_type(column.type)):
        return _texts(plain_column(column), name, origin)
    if pa.types.is_string(plain_type(column.type)):
        return _texts(_checked(column), name, origin)
    return plain_column(column)


def _checked(column: pa.Array) -> pa.Array:
    """Return a column of text; one with bytes that are not UTF-8 as bytes: not all readers check that."""
    try:
        column.validate(full=True)
        return plain_column(column)
    except pa.ArrowInvalid:
        decoded = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        return decoded.cast(pa.large_binary()).cast(pa.binary())


def _texts(column: pa.Array, name: str, origin: RowOrigin) -> pa.Array:
    """Return bytes as text. Raises `DataError` for those that are not UTF-8."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        for row, value in enumerate(column.to_pylist()):
            if value is not None and value.decode("utf-8", "replace").encode() != value:
                raise DataError(
                    f"{value[:60]!r} is not UTF-8",
                    hint="convert it first",
                    file=origin.file,
                    row=origin.row + row + 1,
                    column=name,
                ) from None
        raise


def _vectors(column: pa.Array, name: str, shape: tuple[int, ...], origin: RowOrigin) -> npt.NDArray[Any]:
    """Return lists as rows of numbers, shape (n, width). Raises `DataError` for a row of another shape."""
    rows, column = len(column), plain_column(column)
    flat_list = pa.types.is_fixed_size_list(column.type) and not is_list(plain_type(column.type.value_type))
    sides = (int(np.prod(shape)),) if flat_list else shape  # a tensor is stored as one flat list
    lists_a_row = 1
    for side in sides:
        lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
        if (lengths != side).any():
            at = int((lengths != side).argmax())
            actual = "no list" if lengths[at] < 0 else f"{lengths[at]}"
            row = origin.row + at // lists_a_row + 1
            raise DataError(f"expected {side} values, found {actual}", file=origin.file, row=row, column=name)
        column = plain_column(column.flatten())
        lists_a_row *= side
    return to_numbers(column, name, origin).reshape(rows, -1)
