"""The values in columns of CSV files: missing values, and numbers with marks of other countries."""

from __future__ import annotations

import re
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from nnlib.data.arrow_types import seconds_of_texts
from nnlib.data.importing.read_options import ReadOptions

NumberKind = Literal["number", "boolean", "time"]
"""What the texts of a column of numbers are."""

_BOOLEANS = ("true", "True", "TRUE", "false", "False", "FALSE")


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


def parse_numbers(texts: pa.Array, options: ReadOptions) -> tuple[NumberKind, pa.Array]:
    """Return what trimmed texts are, and the texts as float64: numbers, booleans as 1 and 0, or dates and timestamps
    as seconds (`nnlib.data.arrow_types`).

    Booleans and times stand alone: they are none among other numbers. Raises `pa.ArrowInvalid` for other texts.
    """
    try:
        return "number", _parse_plain(texts, options)
    except pa.ArrowInvalid:
        if pc.all(pc.is_in(texts.drop_null(), value_set=pa.array(_BOOLEANS))).as_py():
            return "boolean", pc.equal(pc.utf8_lower(texts), "true").cast(pa.uint8()).cast(pa.float64())
        if (seconds := seconds_of_texts(texts)) is not None:
            return "time", seconds
        raise


def _parse_plain(texts: pa.Array, options: ReadOptions) -> pa.Array:
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


def _grouped(options: ReadOptions) -> str:
    """Return a regular expression for numbers in which the mark of thousands stands where it may; 0.125 has none."""
    mark, point = re.escape(options.thousands or ""), re.escape(options.decimal)
    return rf"^[+-]?[1-9][0-9]{{0,2}}({mark}[0-9]{{2,3}})*{mark}[0-9]{{3}}({point}[0-9]*)?([eE][+-]?[0-9]+)?$"
