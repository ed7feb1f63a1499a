"""How a new CSV file is to be read for a model: as the files of its dataset, as far as the file agrees.

Whether the first line is a header is seen from the names that the model knows, not from the looks of the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nnlib.core.notes import note
from nnlib.data.encoding import Encoding
from nnlib.data.importing.column_matching import positions
from nnlib.data.importing.formats.csv_header import is_column_of_numbers, kind_of, looks_like_header
from nnlib.data.importing.formats.csv_layout import DELIMITERS, delimiter_of, header_names, read_sample
from nnlib.data.importing.formats.csv_stream import texts_of
from nnlib.data.importing.read_options import ReadingChanges, ReadOptions
from nnlib.data.spelling import spell

Records = Sequence[Sequence[str]]


def recognize_csv(file: str, encoding: Encoding, options: ReadOptions, changes: ReadingChanges) -> ReadOptions:
    """Return ``options`` with the delimiter and the header of a file.

    ``options`` are those stored with the dataset (or the defaults) and those the user gives, which stand in ``changes``
    and stay as they are. Raises `DataError` for what is no CSV.
    """
    text = next(iter(texts_of(file)))
    delimiters = [delimiter_of(text, options)]
    if "delimiter" not in changes:
        delimiters += [mark for mark in DELIMITERS if mark not in delimiters]
    samples = [(mark, read_sample(text, replace(options, delimiter=mark)).records) for mark in delimiters]
    if not samples[0][1]:
        return options
    names = [column.name for column in encoding.columns]
    chosen, records = next(
        ((mark, records) for mark, records in samples if records and _holds_names(records[0], names)),
        next(
            ((mark, records) for mark, records in samples if records and _is_data(records[0], encoding, options)),
            samples[0],
        ),
    )
    if chosen != delimiters[0]:
        note(f"{file}: its columns are cut at {chosen!r}, not {delimiters[0]!r}, which fits the model")
        options = _without_mark(options, chosen, changes)
    header = options.header if "header" in changes else _is_header(file, records, encoding, options)
    return replace(options, delimiter=chosen, header=header)


def _without_mark(options: ReadOptions, delimiter: str, changes: ReadingChanges) -> ReadOptions:
    """Return the options for a file with another delimiter than the dataset's files: without that as the decimal mark,
    and without thousands, which would take 1.234 for 1234. Marks that the user gives stay."""
    if options.decimal == delimiter and "decimal" not in changes:
        options = replace(options, decimal=".")
    if "thousands" not in changes:
        options = replace(options, thousands=None)
    return options


def _is_header(file: str, records: Records, encoding: Encoding, options: ReadOptions) -> bool:
    names = [column.name for column in encoding.columns]
    first = [cell.strip() for cell in records[0]]
    if encoding.is_vector:
        return looks_like_header(records, replace(options, features=(), label=encoding.label))
    if encoding.reading is None:
        return (_holds_names(first, names) and not _are_positions(names)) or looked_like_header(records, encoding.label)
    if encoding.reading.header is False:
        return _is_new_header(file, records, encoding, options)
    if _holds_names(first, names):
        return True
    are_numbers = all(kind_of(name, options) == "number" for name in names)
    if 2 * len(set(names) & set(first)) >= len(names) and (not are_numbers or looks_like_header(records, options)):
        return True
    if all(kind_of(cell, options) != "text" for cell in first) and not set(names) & set(first):
        return False
    return not _is_data(first, encoding, options)


def _holds_names(first: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether a first line has all these names; a cell without a name has that of its position."""
    return set(header_names(first)).issuperset(names) or {cell.strip() for cell in first}.issuperset(names)


def _are_positions(names: Sequence[str]) -> bool:
    return all(name.isdigit() for name in names)


def _is_new_header(file: str, records: Records, encoding: Encoding, options: ReadOptions) -> bool:
    """Return whether a file has a header, although those of the dataset had none: text stands over the numbers of a
    feature, or the first line has the numbers of the columns in order, and no other line has numbers in order."""
    columns = [str(position) for position in range(len(records[0]))]
    found = positions(columns, encoding) or {}
    rows = [row for row in records[1:] if len(row) == len(columns)]
    for column in encoding.columns:
        if column.kind != "categorical" and column.name in found and rows:
            position = int(found[column.name])
            is_text = kind_of(records[0][position], options) == "text"
            if is_text and is_column_of_numbers([row[position] for row in rows], options):
                note(f"{file}: its first line is taken for a header (--no-header if it is not)")
                return True
    if [cell.strip() for cell in records[0]] == columns and looks_like_header(records, ReadOptions()):
        note(f"{file}: its first line numbers the columns and is taken for a header (--no-header if it is not)")
        return True
    return False


def _is_data(first: Sequence[str], encoding: Encoding, options: ReadOptions) -> bool:
    """Return whether a first line without the model's names is a row: its cells are what the model's columns hold."""
    found = positions([str(position) for position in range(len(first))], encoding)
    if found is None:
        return False
    for column in encoding.columns:
        cell = first[int(found[column.name])]
        kind = kind_of(cell, options)
        if column.kind == "categorical":
            if kind != "missing" and spell(cell) not in set(map(spell, column.categories)):
                return False
        elif kind == "text" and spell(cell) not in ("true", "false"):
            return False
    return True


def looked_like_header(records: Records, label: str | None) -> bool:
    """Return what earlier versions took for a header: a first line that names the label column, or has no number while
    the second has one."""
    options = ReadOptions()

    def has_number(record: Sequence[str]) -> bool:
        return any(kind_of(cell, options) != "text" for cell in record)

    first, second = records[0], records[1] if len(records) > 1 else []
    if label is not None and label in [cell.strip() for cell in first] and kind_of(label, options) == "text":
        return True
    return not has_number(first) and (not second or has_number(second))
