"""Read Parquet: files, or a folder of them; columns have names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from nnlib.core.errors import DataError
from nnlib.core.notes import note
from nnlib.data.arrow import READ_ERRORS
from nnlib.data.importing.formats.arrow_tables import arrow_table, opened_file
from nnlib.data.importing.formats.encoded_images import with_images
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.read_options import ReadOptions
from nnlib.storage import file_at


def open_parquet(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open Parquet files at any address. An empty one among others is a table without rows.

    Raises `DataError` for damaged ones.
    """
    may_be_empty = bool(options.columns or files[1:])
    tables: list[Table] = []
    for file in files:
        tables.append(_empty(file) if may_be_empty and not _size(file) else _open(file, options))
        options = tables[-1].reading or options  # the first images decide how the others are decoded
    like = next((table for table in tables if table.rows), tables[0])
    columns = like.columns or options.columns
    return [
        replace(table, reading=replace(table.reading or options, columns=columns))
        if table.rows
        else replace(table, columns=table.columns or columns, shapes=like.shapes, types=like.types)
        for table in tables
    ]


def _size(file: str) -> int:
    folder, name = file_at(file)
    return folder.size(name)


def _empty(file: str) -> Table:
    note(f"{file}: skipped, it is empty")
    return Table(file, (), lambda roles: iter(()), rows=0)


def _open(file: str, options: ReadOptions) -> Table:
    def read(rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with opened_file(file) as source, pq.ParquetFile(source) as parquet:
            yield from parquet.iter_batches(rows, columns=list(columns))

    try:
        with opened_file(file) as source, pq.ParquetFile(source) as parquet:
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
        return with_images(arrow_table(file, schema, rows, read), schema, read, options)
    except READ_ERRORS as error:
        raise DataError(f"is not a readable Parquet file ({error})", file=file) from None
