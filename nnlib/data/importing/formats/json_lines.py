"""Read JSON Lines: an object a line, whose keys are the columns.

The first line says which columns there are. A key that a later line lacks, or null, is a missing value. Text, numbers
and booleans can be used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from nnlib.core.errors import DataError
from nnlib.core.notes import note
from nnlib.data.columns import Columns
from nnlib.data.importing.compression import READ_ERRORS, open_plain
from nnlib.data.importing.formats.table import Role, Table
from nnlib.data.importing.read_options import ReadOptions

CHUNK_BYTES = 1 << 20
"""Bytes of lines that become rows at a time."""

MOST_LINE_BYTES = 256 << 20


def open_json_lines(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open JSON Lines files, compressed or not; an empty one among others is a table without rows.

    Raises `DataError` for a file whose first line is no object.
    """
    tables = [_table(file, may_be_empty=bool(options.columns or files[1:])) for file in files]
    like = next((table for table in tables if table.rows != 0), tables[0])
    return [replace(table, columns=like.columns) if table.rows == 0 else table for table in tables]


def _table(file: str, *, may_be_empty: bool) -> Table:
    first = next(_objects(file), None)
    if first is None:
        if not may_be_empty:
            raise DataError("the file is empty", file=file)
        note(f"{file}: skipped, it is empty")
        return Table(file, (), lambda roles: iter(()), rows=0)

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        rows: list[dict[str, Any]] = []
        size, start = 0, 0
        for value, length in _sized_objects(file):
            rows.append(value)
            size += length
            if size >= CHUNK_BYTES:
                yield {name: _column(rows, name, file, start) for name in roles}
                start += len(rows)
                rows, size = [], 0
        if rows:
            yield {name: _column(rows, name, file, start) for name in roles}

    return Table(file, tuple(first), chunks)


def _objects(file: str) -> Iterator[dict[str, Any]]:
    for value, _ in _sized_objects(file):
        yield value


def _sized_objects(file: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the object of each line that is not blank, and the line's bytes."""
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"byte {error.start + 1} is not UTF-8", file=file, line=number) from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"is not JSON: {error}", file=file, line=number) from None
        if not isinstance(value, dict):
            raise DataError(f"expected an object, found {type(value).__name__}", file=file, line=number)
        yield value, len(line)


def _lines(file: str) -> Iterator[bytes]:
    waiting: list[bytes] = []
    held = 0
    try:
        with open_plain(file) as stream:
            while block := stream.read(CHUNK_BYTES):
                head, *rest = block.split(b"\n")
                waiting.append(head)
                held += len(head)
                if rest:
                    yield b"".join(waiting)
                    yield from rest[:-1]
                    waiting, held = [rest[-1]], len(rest[-1])
                if held > MOST_LINE_BYTES:
                    raise DataError(f"has a line of more than {MOST_LINE_BYTES >> 20} MiB", file=file)
    except (*READ_ERRORS, pa.ArrowException) as error:
        raise DataError(f"is not readable ({error})", file=file) from None
    if held:
        yield b"".join(waiting)


def _column(rows: Sequence[Mapping[str, Any]], name: str, file: str, start: int) -> pa.Array:
    values = [row.get(name) for row in rows]
    for index, value in enumerate(values):
        if isinstance(value, dict | list):
            raise DataError(
                f"expected text or a number, found {'an object' if isinstance(value, dict) else 'a list'}",
                file=file,
                row=start + index + 1,
                column=name,
            )
    if any(isinstance(value, str) for value in values):
        values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        raise DataError(f"has values that are no column: {error}", file=file, column=name) from None
