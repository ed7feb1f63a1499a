"""How the text of a CSV file is laid out: its delimiter, its header, its columns, and where its rows begin."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nnlib.core.errors import DataError
from nnlib.core.notes import note
from nnlib.data.importing.formats.csv_header import kind_of, looks_like_header
from nnlib.data.importing.formats.csv_stream import STREAM_ERRORS, CsvText, open_text
from nnlib.data.importing.read_options import BLANKS, ReadOptions

DELIMITERS = ",;\t|"

_SAMPLE_BYTES = 1 << 20
_SAMPLE_RECORDS = 200


@dataclass(frozen=True)
class CsvSample:
    """The first records of a text.

    ``skip``: the number of empty lines before them. ``has_blank_lines``: there are lines of blanks among them, which
    are no records. ``is_all``: there are no other records.
    """

    records: tuple[tuple[str, ...], ...]
    skip: int
    is_all: bool
    has_blank_lines: bool = False


@dataclass(frozen=True)
class CsvLayout:
    """How a text is laid out.

    - ``options``: those that read it, with delimiter and header
    - ``cells``: a name for every cell of a row; ``columns`` are those that are columns of the table
    - ``index``: the columns that only number the rows
    - ``skip``: lines before the first row, besides those that are left out
    - ``skips_blank_lines``: whether lines of blanks, and empty lines, are left out as the text is read
    - ``has_rows``: whether there may be any
    """

    options: ReadOptions
    cells: tuple[str, ...]
    columns: tuple[str, ...]
    index: tuple[str, ...]
    skip: int
    has_rows: bool
    skips_blank_lines: bool = False


def read_layout(text: CsvText, options: ReadOptions) -> CsvLayout | None:
    """Return how a text is laid out; None if it holds nothing. Raises `DataError` for what is no CSV."""
    delimiter = delimiter_of(text, options)
    sample = read_sample(text, replace(options, delimiter=delimiter))
    if not sample.records:
        return None
    first, rows = sample.records[0], sample.records[1:]
    header = options.header if options.header is not None else looks_like_header(sample.records, options)
    if header and options.header is None and any(kind_of(cell, options) == "number" for cell in first):
        note(f"{text.name}: its first line is taken for a header, although it has numbers (--no-header if it is none)")
    if len(first) == 1:
        counts = {mark: {record[0].count(mark) for record in sample.records} for mark in DELIMITERS}
        in_numbers = (delimiter, options.decimal, options.thousands)
        other = next((mark for mark in DELIMITERS if mark not in in_numbers and 0 not in counts[mark]), None)
        if other:  # in every line, so it is no part of a name
            hint = f"try --delimiter {other!r}"
            raise DataError(f"has one column only when cut at {delimiter!r}", hint=hint, file=text.name)
    _check_blanks(text, sample.records, delimiter, options)
    if options.delimiter is None and (rival := _rival(sample.records, delimiter)) is not None:
        note(f"{text.name}: is cut at {delimiter!r}; {rival!r} fits as well (--delimiter {rival!r} if it is that)")
    cells = header_names(first, options) if header else [str(position) for position in range(len(first))]
    index: tuple[str, ...] = ()
    if header and rows and all(len(row) == len(first) + 1 for row in rows):
        # A row has one cell more than the header: R writes the names of rows so, others end each row with a delimiter.
        cells = [*cells, ""] if all(not row[-1].strip() for row in rows) else ["Unnamed: 0", *cells]
        index = () if cells[-1] == "" else ("Unnamed: 0",)
    elif header and any(cell.strip() for cell in first):
        unnamed = next(position for position, cell in enumerate(first) if cell.strip())
        index = tuple(cells[:unnamed])  # pandas writes each level of an index so
    columns = list(cells)
    checked = rows if header else sample.records
    is_unnamed = cells[-1] == "" or not header or not first[-1].strip()
    if len(cells) > 1 and is_unnamed and len(checked) > 1 and not any(row[-1].strip() for row in checked):
        columns.pop()
        note(f"{text.name}: every row ends with {delimiter!r}: there is no column after it")
    if doubles := sorted({name for name in cells if cells.count(name) > 1} if len(set(cells)) < len(cells) else ()):
        raise DataError(f"the header has {doubles[0]!r} twice", hint="rename one, or use --no-header", file=text.name)
    skips_blank_lines = sample.has_blank_lines or len(cells) == 1  # which else would be a missing value
    return CsvLayout(
        replace(options, delimiter=delimiter, header=header),
        tuple(cells),
        tuple(columns),
        index,
        int(header) if skips_blank_lines else sample.skip + header,
        not (header and sample.is_all and not rows),
        skips_blank_lines,
    )


def _check_blanks(text: CsvText, records: Sequence[Sequence[str]], delimiter: str, options: ReadOptions) -> None:
    """Raise `DataError` for columns that stand apart by blanks, where these are not the delimiter, or only one is."""
    widths = {len(record) for record in records}
    if delimiter == " ":
        has_empty = any("" in record for record in records)
        empty = [not any(cells) for cells in zip(*records, strict=False)] if len(records) > 1 else []
        is_apart = has_empty and (len(widths) > 2 or any(empty[:-1]))  # rows may have a name more than the header
    else:
        words = {len(record[0].split()) for record in records}
        is_apart = (
            delimiter != BLANKS and not options.likely_features and widths == {1} and len(words) == 1 < max(words)
        )
    if is_apart:
        hint = f"if one or more blanks separate its columns, use --delimiter {BLANKS}"
        raise DataError(f"is not readable as columns when cut at {delimiter!r}", hint=hint, file=text.name)


def _rival(records: Sequence[Sequence[str]], delimiter: str) -> str | None:
    """Return another delimiter that stands in the cells of each record as often, and not less often than
    ``delimiter`` between them; None if there is none."""
    for mark in DELIMITERS:
        counts = {sum(cell.count(mark) for cell in record) for record in records}
        if mark != delimiter and len(records) > 1 and len(counts) == 1 and counts.pop() >= max(1, len(records[0]) - 1):
            return mark
    return None


def delimiter_of(text: CsvText, options: ReadOptions) -> str:
    """Return the delimiter of a text: that of the options, or the usual one for its name.

    Raises `DataError` if it is not one ASCII character.
    """
    delimiter = options.delimiter or ("\t" if re.search(r"\.(tsv|tab)\b", text.name.lower()) else ",")
    if delimiter != BLANKS and (len(delimiter) != 1 or ord(delimiter) > 127):
        raise DataError(f"the delimiter must be one ASCII character, or {BLANKS}, not {delimiter!r}", file=text.name)
    return delimiter


def cell_mark(options: ReadOptions) -> str:
    """Return the character between the cells of a text as `open_text` yields it."""
    return " " if options.delimiter == BLANKS else options.delimiter or ","


def read_sample(text: CsvText, options: ReadOptions) -> CsvSample:
    """Return the first records of a text, cut at ``options.delimiter``. Raises `DataError` for what is no CSV."""
    try:
        with open_text(text, options) as stream:
            sample: bytes = stream.read(_SAMPLE_BYTES)
    except STREAM_ERRORS as error:
        raise stream_error(text, options, error) from None
    is_whole = len(sample) < _SAMPLE_BYTES
    bad: int | None = None
    try:
        decoded = codecs.getincrementaldecoder("utf-8-sig")().decode(sample)
    except UnicodeDecodeError as error:
        bad = error.start
        decoded = sample[:bad].decode("utf-8-sig", "ignore")
    records: list[tuple[str, ...]] = []
    skip = 0
    has_blank_lines = False
    is_all = is_whole and bad is None
    reader = csv.reader(
        io.StringIO(decoded, newline=""),
        delimiter=cell_mark(options),
        quotechar=options.quote or None,
        quoting=csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
    )
    try:
        for record in reader:
            if len(records) > _SAMPLE_RECORDS:
                is_all = False
                break
            if len(record) == 1 and record[0].isspace():
                has_blank_lines = True
            elif record:
                records.append(tuple(record))
            elif not records:
                skip += 1
        else:
            if not is_all and len(records) > 1 and not decoded.endswith(("\n", "\r")):
                records.pop()  # it is cut off
    except csv.Error as error:
        if len(records) < 2:
            raise DataError(f"is not readable as CSV ({error})", file=text.name) from None
        is_all = False
    if bad is not None and len(records) < 2:
        raise DataError(f"byte {bad} is not UTF-8", hint=ENCODING_HINT, file=text.name, row=1)
    if records and options.encoding is None and any("\0" in cell for cell in records[0]):
        hint = "is it UTF-16? Say so with --encoding utf-16"
        raise DataError("its first line holds zero bytes", hint=hint, file=text.name)
    if len(records) == 1 and not is_all:
        raise DataError(f"its first line goes on for more than {_SAMPLE_BYTES:,} bytes", file=text.name, row=1)
    return CsvSample(tuple(records), skip, is_all, has_blank_lines)


ENCODING_HINT = "name its encoding with --encoding (latin-1 or cp1252, say), or convert it to UTF-8 first"


def stream_error(text: CsvText, options: ReadOptions, error: BaseException) -> DataError:
    """Return the error for a text whose stream cannot be read."""
    if isinstance(error, UnicodeError):
        wanted = options.encoding or "what its first bytes say"
        return DataError(f"is not {wanted} ({error})", hint="try another --encoding", file=text.name)
    return DataError(f"is not readable ({error})", file=text.name)


def header_names(first: Sequence[str], options: ReadOptions | None = None) -> list[str]:
    """Return the names in a header; a cell without one is named after its position, as pandas does.

    ``options``: of a model of an earlier version, which knows such a column as "".
    """
    names = [cell.strip() for cell in first]
    if options is not None and "" in options.likely_features:
        return names
    for position, name in enumerate(names):
        if not name:
            more = 0
            while (unnamed := f"Unnamed: {position}" + (f".{more}" if more else "")) in names:
                more += 1
            names[position] = unnamed
    return names
