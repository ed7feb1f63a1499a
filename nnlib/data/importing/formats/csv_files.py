"""Read CSV files as a stream, plain or compressed, in any encoding. Errors name row, column and value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.csv as pacsv

from nnlib.core.errors import DataError, UsageError
from nnlib.core.notes import note
from nnlib.data.columns import Columns
from nnlib.data.importing.formats.csv_layout import ENCODING_HINT, CsvLayout, cell_mark, read_layout, stream_error
from nnlib.data.importing.formats.csv_stream import STREAM_ERRORS, CsvText, open_text, texts_of
from nnlib.data.importing.formats.csv_values import NumberKind, has_marks, parse_numbers, without_marks
from nnlib.data.importing.formats.table import Role, Table, check_same_columns
from nnlib.data.importing.null_values import null_marks, with_missing
from nnlib.data.importing.read_options import ReadOptions

_BLOCK_BYTES = 4 << 20
_RAGGED = re.compile(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+): (.*)", re.DOTALL)

Layouts = list[tuple[CsvText, CsvLayout]]


def open_csv(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open CSV files, a table for each; the first one with rows says how all of them are laid out.

    A file that is empty, or has a header alone, is a table without rows, with the columns of the others, or else those
    of ``options.columns``. Raises `DataError` for files that are no CSV, and `UsageError` for options that contradict
    each other.
    """
    _check(options)
    texts = [(file, texts_of(file)) for file in files]
    first: CsvLayout | None = None
    for text in (text for _, parts in texts for text in parts):
        layout = read_layout(text, options)
        first = layout if first is None or (layout is not None and not first.has_rows) else first
        if first is not None and first.has_rows:
            break
    if first is not None:
        options = replace(first.options, columns=first.columns)
    return [_open(file, parts, options, first, is_only=len(files) == 1) for file, parts in texts]


def _check(options: ReadOptions) -> None:
    if options.quote and options.quote == options.delimiter:
        raise UsageError(f"--quote and --delimiter are both {options.quote!r}")
    if options.thousands is not None and options.thousands == options.decimal:
        raise UsageError(f"--thousands and --decimal are both {options.decimal!r}", hint="name both of them")


def _open(
    file: str, texts: Sequence[CsvText], options: ReadOptions, first: CsvLayout | None, *, is_only: bool
) -> Table:
    found = [(text, read_layout(text, options)) for text in texts]
    layouts: Layouts = [(text, layout) for text, layout in found if layout is not None and layout.has_rows]
    for text, layout in found:
        if (layout is None or not layout.has_rows) and not (is_only and len(texts) == 1):
            note(f"{text.name}: skipped, it has {'a header but no rows' if layout is not None else 'no rows'}")
    like = next((layout for _, layout in layouts), next((layout for _, layout in found if layout), first))
    columns = like.columns if like is not None else options.columns
    index = like.index if like is not None else ()
    table = partial(Table, columns=columns, reading=options, index=index)
    if not layouts:
        return table(file, chunks=_none, rows=0)
    check_same_columns([Table(text.name, layout.columns, _none) for text, layout in layouts])

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        for text, layout in layouts:
            yield from CsvReader(text, layout, roles).chunks()

    return table(file, chunks=chunks)


def _none(roles: Mapping[str, Role]) -> Iterator[Columns]:
    return iter(())


class _BlankLineError(Exception):
    """A line holds blanks alone."""


class CsvReader:
    """Reads the columns named in ``roles`` of one text."""

    def __init__(self, text: CsvText, layout: CsvLayout, roles: Mapping[str, Role]) -> None:
        self._text, self._layout, self._roles = text, layout, roles
        self._options = layout.options
        self._marks = null_marks(layout.options)
        self._kinds: dict[str, NumberKind] = {}

    def chunks(self) -> Iterator[Columns]:
        """Yield the rows in chunks: numbers as float64, all other columns as strings.

        Raises `DataError`, naming row, column and value, for what is no number and for text that cannot be decoded.
        """
        types = {name: pa.float64() if role == "number" else pa.string() for name, role in self._roles.items()}
        start = 0
        if not self._options.thousands:
            try:
                for batch in self._batches(types):
                    yield {name: self._texts(batch, name) for name in self._roles}
                    start += len(batch)
            except pa.ArrowInvalid:
                pass  # Arrow's reader takes no blanks around a missing value, say; what is wrong is named below
            else:
                return
        skipped = 0
        for batch in self._batches(dict.fromkeys(types, pa.binary())):
            rest = batch.slice(min(len(batch), start - skipped))
            skipped += len(batch) - len(rest)
            if len(rest):
                yield {name: self._converted(rest, name, start) for name in self._roles}
                start += len(rest)
                skipped += len(rest)

    def _texts(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        column = batch.column(name)
        if self._roles[name] != "number":
            return self._plain_texts(column)
        if column.null_count < len(column):
            self._kinds[name] = "number"
        return column

    def _plain_texts(self, column: pa.Array) -> pa.Array:
        """Return texts with missing values as nulls, also those with spaces around, and numbers with a point."""
        text = with_missing(column, self._marks)
        return without_marks(text, self._options) if has_marks(self._options) else text

    def _converted(self, batch: pa.RecordBatch, name: str, start: int) -> pa.Array:
        """Convert a column of bytes. ``start``: the position of the batch's first row."""
        column = batch.column(name)
        try:
            text = column.cast(pa.string())
        except pa.ArrowInvalid:
            row = next(row for row, value in enumerate(column.to_pylist()) if not _is_utf8(value))
            raise self._bad_text(name, start + row + 1, column[row].as_py()) from None
        if self._roles[name] != "number":
            return self._plain_texts(text)
        trimmed = with_missing(_trimmed(text), ("", *self._marks))  # no number is written as nothing
        try:
            kind, numbers = parse_numbers(trimmed, self._options)
        except pa.ArrowInvalid:
            row = self._first_odd(trimmed, name)
            raise self._bad_number(name, start + row + 1, text[row].as_py()) from None
        if trimmed.null_count < len(trimmed) and self._kinds.setdefault(name, kind) != kind:
            row = next(row for row, value in enumerate(trimmed.to_pylist()) if value is not None)
            message = f"{text[row].as_py()!r} is a {kind}, the column has a {self._kinds[name]} in rows before"
            raise DataError(message, file=self._text.name, row=start + row + 1, column=name)
        return numbers

    def _first_odd(self, trimmed: pa.Array, name: str) -> int:
        """Return the first row whose value is of another kind than the rows before this batch, or else no number."""
        wanted = self._kinds.get(name, "number")
        for row in range(len(trimmed)):
            try:
                kind, _ = parse_numbers(trimmed.slice(row, 1), self._options)
            except pa.ArrowInvalid:
                return row
            if trimmed[row].is_valid and kind != wanted:
                return row
        return 0

    def _batches(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """Yield all rows; once a line of blanks is met, which Arrow takes for a row, without such lines."""
        rows = 0
        try:
            for batch in self._batches_of_lines(types):
                yield batch
                rows += len(batch)
            return
        except _BlankLineError:
            # The lines before the header were counted by `read_layout`; now those that are empty are left out, too.
            skip = int(bool(self._options.header))
            self._layout = replace(self._layout, skips_blank_lines=True, skip=skip)
        for batch in self._batches_of_lines(types):
            rest = batch.slice(min(len(batch), rows))
            rows -= len(batch) - len(rest)
            if len(rest):
                yield rest

    def _batches_of_lines(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        layout, options = self._layout, self._options
        rows = 0
        try:
            with (
                open_text(self._text, options, skips_blank_lines=layout.skips_blank_lines) as stream,
                pacsv.open_csv(
                    stream,
                    pacsv.ReadOptions(
                        use_threads=False,
                        block_size=_BLOCK_BYTES,
                        column_names=layout.cells,
                        skip_rows_after_names=layout.skip,
                    ),
                    pacsv.ParseOptions(
                        delimiter=cell_mark(options), quote_char=options.quote or False, newlines_in_values=True
                    ),
                    pacsv.ConvertOptions(
                        column_types=types,
                        include_columns=list(types),
                        null_values=list(self._marks),
                        strings_can_be_null=True,
                        decimal_point=options.decimal,
                    ),
                ) as reader,
            ):
                for batch in reader:
                    yield batch
                    rows += len(batch)
        except STREAM_ERRORS as error:
            raise self._explained(rows, types, error) from None

    def _explained(self, rows: int, types: Mapping[str, pa.DataType], error: BaseException) -> BaseException:
        """Return the error of a text that cannot be read after some rows; of a value that does not convert, the error
        as it is."""
        # Arrow has a handler for such rows, too, but it prints a traceback where a row is not UTF-8.
        if (ragged := _RAGGED.search(str(error))) is not None:
            row, expected, columns, text = ragged.groups()
            if columns == "1" and not text.strip() and not self._layout.skips_blank_lines:
                return _BlankLineError()
            return DataError(
                f"expected {expected} columns, found {columns}: {text[:200]}",
                file=self._text.name,
                row=None if row is None else int(row) - self._layout.skip,
            )
        if not isinstance(error, pa.ArrowInvalid):
            return stream_error(self._text, self._options, error)
        if "straddl" in str(error):  # a row must fit in one of Arrow's blocks
            return DataError(
                f"a row after row {rows} goes on for about {_BLOCK_BYTES:,} bytes or more",
                hint="is a quote left open, or is this no CSV file?",
                file=self._text.name,
            )
        if all(pa.types.is_binary(kind) for kind in types.values()):
            return DataError(f"is not readable as CSV after row {rows} ({error})", file=self._text.name)
        unexplained: BaseException = error
        return unexplained

    def _bad_text(self, name: str, row: int, value: bytes) -> DataError:
        message = f"{value[:60]!r} is not UTF-8"
        return DataError(message, hint=ENCODING_HINT, file=self._text.name, row=row, column=name)

    def _bad_number(self, name: str, row: int, value: str) -> DataError:
        hint = "encode the column with --categorical, or name those to use, without it, with --features"
        if re.fullmatch(r"\s*[+-]?[\d.,' ]*\d[\d.,' ]*\s*", value):
            hint = "name the marks in numbers with --decimal and --thousands"
        return DataError(f"{value!r} is not a number", hint=hint, file=self._text.name, row=row, column=name)


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _trimmed(column: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.utf8_trim_whitespace(column)
