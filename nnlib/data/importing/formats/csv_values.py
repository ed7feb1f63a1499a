"""The values in columns of CSV files: missing values, and numbers with marks of other countries."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from nnlib.data.importing.read_options import ReadOptions

USUAL_NULL_VALUES = (*pacsv.ConvertOptions().null_values, "?")


def null_marks(options: ReadOptions) -> tuple[str, ...]:
    """Return the texts that mean a missing value."""
    return USUAL_NULL_VALUES if options.null_values is None else options.null_values


def number_of(cell: str, options: ReadOptions) -> float | None:
    """Return the number that a cell holds, None if it holds none."""
    text = cell.strip()
    if options.thousands and re.search(_grouped(options), text):
        text = text.replace(options.thousands, "")
    if options.decimal != ".":
        if "." in text:
            return None
        text = text.replace(options.decimal, ".")
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def has_marks(options: ReadOptions) -> bool:
    """Return whether numbers are written with other marks than a point for decimals."""
    return options.decimal != "." or bool(options.thousands)


def without_marks(texts: pa.Array, options: ReadOptions) -> pa.Array:
    """Return texts with the numbers among them written with a decimal point and without thousands."""
    return _with_point(_joined_thousands(texts, options), options)


def parse_numbers(texts: pa.Array, options: ReadOptions) -> pa.Array:
    """Return trimmed texts as float64. Raises `pa.ArrowInvalid` if one is no number."""
    joined = _joined_thousands(texts, options)
    if options.decimal != "." and pc.any(pc.match_substring(joined, ".")).as_py():
        raise pa.ArrowInvalid("a number with another decimal mark")
    return _with_point(joined, options).cast(pa.float64())


def _joined_thousands(texts: pa.Array, options: ReadOptions) -> pa.Array:
    if not options.thousands:
        return texts
    is_grouped = pc.match_substring_regex(texts, _grouped(options))
    return pc.if_else(is_grouped, pc.replace_substring(texts, options.thousands, ""), texts)


def _with_point(texts: pa.Array, options: ReadOptions) -> pa.Array:
    if options.decimal == ".":
        return texts
    mark = re.escape(options.decimal)
    is_number = pc.match_substring_regex(texts, rf"^[+-]?([0-9]+{mark}[0-9]*|{mark}[0-9]+)([eE][+-]?[0-9]+)?$")
    return pc.if_else(is_number, pc.replace_substring(texts, options.decimal, "."), texts)


def to_missing(texts: pa.Array, marks: Sequence[str]) -> pa.Array:
    """Return trimmed texts with those that mean a missing value as nulls."""
    is_mark = pc.is_in(texts, value_set=pa.array(marks, pa.string()))
    return pc.if_else(is_mark, pa.scalar(None, pa.string()), texts)


def _grouped(options: ReadOptions) -> str:
    """Return a regular expression for numbers in which the mark of thousands stands where it may."""
    mark, point = re.escape(options.thousands or ""), re.escape(options.decimal)
    return rf"^[+-]?[0-9]{{1,3}}({mark}[0-9]{{2,3}})*{mark}[0-9]{{3}}({point}[0-9]*)?([eE][+-]?[0-9]+)?$"
