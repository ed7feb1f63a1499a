"""Read Parquet: files, or a folder of them; columns have names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nnlib.core.errors import DataError
from nnlib.data.arrow import READ_ERRORS
from nnlib.data.importing.formats.arrow_tables import arrow_table, opened_file
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.read_options import ReadOptions


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


def _open(file: str) -> Table:
    def read(rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with opened_file(file) as source, pq.ParquetFile(source) as parquet:
            yield from parquet.iter_batches(rows, columns=list(columns))

    try:
        with opened_file(file) as source, pq.ParquetFile(source) as parquet:
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
        return arrow_table(file, schema, rows, read)
    except READ_ERRORS as error:
        raise DataError(f"is not a readable Parquet file ({error})", file=file) from None
