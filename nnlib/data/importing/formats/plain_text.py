"""Read plain text: a file is one document, of UTF-8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from nnlib.core.errors import DataError
from nnlib.data.columns import Columns
from nnlib.data.importing.compression import READ_ERRORS, open_plain, read_head
from nnlib.data.importing.formats.table import Role, Table
from nnlib.data.importing.read_options import ReadOptions

COLUMN = "text"

MOST_BYTES = 256 << 20
"""The largest document: a tokenizer takes many times its memory."""


def open_text(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open files of plain text, compressed or not. Raises `DataError` for one that cannot be read; reading raises it
    for bytes that are not UTF-8."""
    return [_table(file) for file in files]


def _table(file: str) -> Table:
    read_head(file)  # a file that is missing is named at once

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        yield {name: pa.array([_read(file)], pa.string()) for name in roles}

    return Table(file, (COLUMN,), chunks, rows=1)


def _read(file: str) -> str:
    try:
        with open_plain(file) as stream:
            data: bytes = stream.read(MOST_BYTES + 1)
    except (*READ_ERRORS, pa.ArrowException) as error:
        raise DataError(f"is not readable ({error})", file=file) from None
    if len(data) > MOST_BYTES:
        raise DataError(
            f"is a document of more than {MOST_BYTES >> 20} MiB",
            hint="cut it into several files, or into rows of a JSON Lines file",
            file=file,
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"byte {error.start + 1}, in line {line}, is not UTF-8",
            hint="convert the file first (iconv), or leave it out",
            file=file,
        ) from None
