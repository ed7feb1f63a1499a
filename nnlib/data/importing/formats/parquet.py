"""Read Parquet: files, or a folder of them; columns have names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nnlib.core.errors import DataError
from nnlib.data.arrow import READ_ERRORS
from nnlib.data.columns import Columns
from nnlib.data.importing.formats.table import Role, Table, rows_per_chunk
from nnlib.data.importing.read_options import ReadOptions
from nnlib.storage import file_at, has_scheme


def open_parquet(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open Parquet files at any address, and the files of local folders. Raises `DataError` for damaged ones."""
    return [_open(part) for file in files for part in _parts(file)]


def _parts(file: str) -> list[str]:
    if not Path(file).is_dir():
        return [file]
    parts = sorted(str(path) for path in Path(file).iterdir() if path.suffix in (".parquet", ".pq"))
    if not parts:
        raise DataError("the directory holds no .parquet files", file=file)
    return parts


def _file(file: str) -> Any:
    """Return what pyarrow reads: the path, or for another address a stream."""
    if not has_scheme(file):
        return file
    folder, name = file_at(file)
    return folder.open(name)


def _open(file: str) -> Table:
    try:
        with pq.ParquetFile(_file(file)) as parquet:
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
        if len(set(schema.names)) < len(schema.names):
            double = next(name for name in schema.names if schema.names.count(name) > 1)
            raise DataError("has this column twice", hint="rename one", file=file, column=double)
        first = _first_widths(file, schema)
    except READ_ERRORS as error:
        raise DataError(f"is not a readable Parquet file ({error})", file=file) from None

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        for name in roles:
            _check_type(file, schema.field(name))
        size = rows_per_chunk(sum(8 * first.get(name, 1) for name in roles))
        try:
            with pq.ParquetFile(_file(file)) as parquet:
                start = 0
                for batch in parquet.iter_batches(size, columns=list(roles)):
                    yield {name: _column(file, name, batch.column(name), first.get(name), start) for name in roles}
                    start += len(batch)
        except READ_ERRORS as error:
            raise DataError(f"is not readable ({error})", file=file) from None

    types = {field.name: str(_element(field.type)) for field in schema}
    shapes = {name: (width,) for name, width in first.items()}
    return Table(file, tuple(schema.names), chunks, shapes, types, rows=rows)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _element(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if _is_list(kind) else kind


def _check_type(file: str, field: pa.Field) -> None:
    kind = _element(field.type)
    if pa.types.is_dictionary(kind) and not _is_list(field.type):
        kind = kind.value_type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    text = not _is_list(field.type) and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
    if not (number or text or pa.types.is_null(kind)):
        raise DataError(
            f"columns of type {field.type} cannot be used",
            hint="choose other columns with --features, or convert it to numbers or text",
            file=file,
            column=field.name,
        )


def _first_widths(file: str, schema: pa.Schema) -> dict[str, int]:
    """Return the number of elements in a row of every list column; a plain list must be as long in every row as in the
    first."""
    widths: dict[str, int] = {}
    for field in schema:
        if not _is_list(field.type) or _is_list(field.type.value_type) or pa.types.is_nested(field.type.value_type):
            continue
        if pa.types.is_fixed_size_list(field.type):
            widths[field.name] = field.type.list_size
            continue
        with pq.ParquetFile(_file(file)) as parquet:
            for batch in parquet.iter_batches(1, columns=[field.name]):
                widths[field.name] = pc.list_value_length(batch.column(0))[0].as_py() or 0
                break
    return widths


def _check_text(file: str, name: str, column: pa.Array, start: int) -> None:
    """Raise `DataError` for a text that is not UTF-8: reading Parquet does not check that."""
    if not (
        pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_dictionary(column.type)
    ):
        return
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for row, value in enumerate(plain.cast(pa.large_binary()).to_pylist()):
            if value is not None and value.decode("utf-8", "replace").encode() != value:
                raise DataError(
                    f"{value[:60]!r} is not UTF-8", hint="convert it first", file=file, row=start + row + 1, column=name
                ) from None
        raise


def _column(file: str, name: str, column: pa.Array, width: int | None, start: int) -> Any:
    if width is None:
        _check_text(file, name, column, start)
        return column
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    if (lengths != width).any():
        row = int((lengths != width).argmax())
        actual = "no list" if lengths[row] < 0 else f"{lengths[row]}"
        raise DataError(f"expected {width} values, found {actual}", file=file, row=start + row + 1, column=name)
    elements = column.flatten()
    if elements.null_count:
        elements = elements.cast(pa.float64(), safe=False)
    if pa.types.is_boolean(elements.type):
        elements = elements.cast(pa.uint8())
    return elements.to_numpy(zero_copy_only=False).reshape(len(column), width)
