"""Read CSV files, plain or gzipped, as a stream. The header is recognized; errors name row, column and value."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from nnlib.core.errors import DataError
from nnlib.data.columns import Columns
from nnlib.data.importing.formats.table import Role, Table
from nnlib.data.importing.read_options import ReadOptions

_SAMPLE_BYTES = 1 << 20
_BLOCK_BYTES = 4 << 20
_RAGGED = re.compile(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+): (.*)", re.DOTALL)
_MISSING = [*pacsv.ConvertOptions().null_values, "?"]


def open_csv(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open CSV files. Raises `DataError` for files whose first lines are no CSV."""
    return [_open(file, options) for file in files]


def _open(file: str, options: ReadOptions) -> Table:
    delimiter = options.delimiter or ("\t" if ".tsv" in file.lower() else ",")
    if len(delimiter) != 1 or ord(delimiter) > 127:
        raise DataError(f"the delimiter must be one ASCII character, not {delimiter!r}", file=file)
    first, second, skip = _first_records(file, delimiter)
    header = options.header if options.header is not None else _is_header(first, second, options.label)
    names = [cell.strip() for cell in first] if header else [str(position) for position in range(len(first))]
    doubles = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if doubles:
        raise DataError(f"the header has {doubles[0]!r} twice", hint="rename one, or use --no-header", file=file)
    if len(names) == 1:
        other = next((mark for mark in ";\t|," if mark != delimiter and mark in first[0]), None)
        if other:
            raise DataError(
                f"has one column only when cut at {delimiter!r}", hint=f"try --delimiter {other!r}", file=file
            )
    skip = skip + 1 if header else skip

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        types = {name: pa.float64() if role == "number" else pa.string() for name, role in roles.items()}
        try:
            for batch in _batches(file, delimiter, names, skip, types):
                yield {name: batch.column(name) for name in roles}
        except pa.ArrowInvalid as error:
            raise _explained(file, delimiter, names, skip, types, error) from None

    return Table(file, tuple(names), chunks)


def _batches(
    file: str, delimiter: str, names: list[str], skip: int, types: Mapping[str, pa.DataType]
) -> Iterator[pa.RecordBatch]:
    try:
        with (
            pa.input_stream(file, compression="detect") as stream,
            pacsv.open_csv(
                stream,
                pacsv.ReadOptions(
                    use_threads=False, block_size=_BLOCK_BYTES, column_names=names, skip_rows_after_names=skip
                ),
                pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                pacsv.ConvertOptions(
                    column_types=types, include_columns=list(types), null_values=_MISSING, strings_can_be_null=True
                ),
            ) as reader,
        ):
            yield from reader
    except (pa.ArrowInvalid, OSError) as error:
        # Arrow has a handler for such rows, too, but it prints a traceback where a row is not UTF-8.
        if (ragged := _RAGGED.search(str(error))) is not None:
            row, expected, columns, text = ragged.groups()
            raise DataError(
                f"expected {expected} columns, found {columns}: {text[:200]}",
                file=file,
                row=None if row is None else int(row) - skip,
            ) from None
        if isinstance(error, OSError):
            raise DataError(f"is not readable ({error})", file=file) from None
        raise


def _explained(
    file: str, delimiter: str, names: list[str], skip: int, types: Mapping[str, pa.DataType], error: Exception
) -> DataError:
    """Return the error that names the value that did not convert: the file is read again, as bytes."""
    start = 0
    try:
        for batch in _batches(file, delimiter, names, skip, dict.fromkeys(types, pa.binary())):
            for name, kind in types.items():
                row = _first_bad(batch.column(name), kind)
                if row is not None:
                    value: bytes = batch.column(name)[row].as_py()
                    return _bad_value(file, name, start + row + 1, value, kind)
            start += len(batch)
    except pa.ArrowInvalid as second:
        error = second
    if "straddl" in str(error):  # a row must fit in one of Arrow's blocks
        return DataError(
            f"a row after row {start} goes on for about {_BLOCK_BYTES:,} bytes or more",
            hint="is a quote left open, or is this no CSV file?",
            file=file,
        )
    return DataError(f"is not readable as CSV after row {start} ({error})", file=file)


def _first_bad(column: pa.Array, kind: pa.DataType) -> int | None:
    try:
        text = column.cast(pa.string())
        pc.utf8_trim_whitespace(text).cast(kind)
        return None
    except pa.ArrowInvalid:
        values = enumerate(column.to_pylist())
        return next((row for row, value in values if value is not None and not _converts(value, kind)), None)


def _converts(value: bytes, kind: pa.DataType) -> bool:
    try:
        text = value.decode()
        pa.scalar(text.strip()).cast(kind)
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return False
    return True


def _bad_value(file: str, name: str, row: int, value: bytes, kind: pa.DataType) -> DataError:
    try:
        shown = repr(value.decode())
    except UnicodeDecodeError:
        return DataError(
            f"{value[:60]!r} is not UTF-8", hint="convert the file to UTF-8 first", file=file, row=row, column=name
        )
    return DataError(
        f"{shown} is not a number",
        hint="encode the column with --categorical, or name those to use, without it, with --features",
        file=file,
        row=row,
        column=name,
    )


def _first_records(file: str, delimiter: str) -> tuple[list[str], list[str], int]:
    """Return the first two records and the number of empty lines before them."""
    try:
        with pa.input_stream(file, compression="detect") as stream:
            sample: bytes = stream.read(_SAMPLE_BYTES)
    except OSError as error:
        raise DataError(f"is not readable ({error})", file=file) from None
    if sample[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError("is UTF-16", hint="convert it to UTF-8 first", file=file)
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(sample)
    except UnicodeDecodeError as error:
        text = sample[: error.start].decode("utf-8-sig", "ignore")
        if text.count("\n") < 2:
            raise DataError(
                f"byte {error.start} is not UTF-8", hint="convert the file to UTF-8 first", file=file, row=1
            ) from None
    records: list[list[str]] = []
    skip = 0
    try:
        for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if record:
                records.append(record)
            elif not records:
                skip += 1
            if len(records) == 2:
                break
    except csv.Error as error:
        raise DataError(f"is not readable as CSV ({error})", file=file) from None
    if not records:
        raise DataError("the file is empty", file=file)
    if len(records) == 1 and len(sample) == _SAMPLE_BYTES:
        raise DataError(f"its first line goes on for more than {_SAMPLE_BYTES:,} bytes", file=file, row=1)
    return records[0], records[1] if len(records) > 1 else [], skip


def _is_header(first: list[str], second: list[str], label: str | None) -> bool:
    """Return whether the first line is a header: it names the label column, or has no number while the second has."""
    if label is not None and label in [cell.strip() for cell in first] and not _number(label):
        return True
    return not any(_number(cell) for cell in first) and (not second or any(_number(cell) for cell in second))


def _number(cell: Any) -> bool:
    try:
        float(cell)
    except ValueError:
        return str(cell).strip() in _MISSING
    return True
