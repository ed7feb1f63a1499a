"""Read Arrow files (Feather version 2, the IPC file format); columns have names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from nnlib.core.errors import DataError
from nnlib.data.arrow import READ_ERRORS
from nnlib.data.importing.formats.arrow_tables import arrow_table, opened_file
from nnlib.data.importing.formats.encoded_images import with_images
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.read_options import ReadOptions


def open_arrow(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open Arrow files at any address. Raises `DataError` for damaged files and for Arrow streams."""
    tables: list[Table] = []
    for file in files:
        tables.append(_open(file, options))
        options = tables[-1].reading or options  # the first images decide how the others are decoded
    return tables


def _open(file: str, options: ReadOptions) -> Table:
    def read(rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with opened_file(file, mapped=True) as source, pa.ipc.open_file(source) as reader:
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index).select(list(columns))
                batch.validate(full=True)  # reading checks nothing, and damaged arrays end the process later
                for start in range(0, len(batch), rows):
                    yield batch.slice(start, rows)

    try:
        with opened_file(file, mapped=True) as source, pa.ipc.open_file(source) as reader:
            schema = reader.schema
        return with_images(arrow_table(file, schema, None, read), schema, read, options)
    except READ_ERRORS as error:
        raise DataError(
            f"is not a readable Arrow file ({error})",
            hint="write it with pyarrow.feather.write_feather, or as Parquet",
            file=file,
        ) from None
