"""Whether the first line of a CSV file names the columns: a guess from the lines after it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from nnlib.data.importing.formats.csv_values import number_of
from nnlib.data.importing.null_values import null_marks
from nnlib.data.importing.read_options import ReadOptions
from nnlib.data.spelling import is_time_stamp

CellKind = Literal["number", "missing", "text"]

_FEW = 3
"""Numbers in order that may be names of columns: fewer are more likely data."""
_MANY = 8
"""This many numbers are in order by chance once in 20,160 lines."""


def looks_like_header(records: Sequence[Sequence[str]], options: ReadOptions) -> bool:
    """Return whether the first of some records is a header.

    It is one where it has a column that the user names, where it has text over a column of numbers, where all its cells
    are texts that differ from each other and from those below them, and where its numbers count the columns or are in
    order (0,1,2; wavelengths) as those of no other line are.
    """
    first = [cell.strip() for cell in records[0]]
    if any(name in first and not _is_position(name) for name in (*options.features, options.label) if name):
        return True
    rows = [record for record in records[1:] if len(record) == len(first)]
    line = _FirstLine(first, [[row[position].strip() for row in rows] for position in range(len(first))], options)
    if not line.numbers:
        return bool(line.texts) and (not rows or line.is_over_numbers or line.is_names)
    if not rows or not line.is_new or len(set(first)) < len(first):
        return False
    if line.is_over_numbers:
        return _counts(line.numbers) or line.has_order
    if _counts(line.numbers) and (line.is_over_texts or line.is_over_repeats):
        return True
    if any(_is_in_order([row[position] for position in line.places], options) for row in rows):
        return False
    if _counts(line.numbers) and line.numbers[0] == "0" and len(line.numbers) >= _FEW and line.is_over_fractions:
        return True
    is_even = bool(line.texts) and line.has_order and _is_even(line.numbers, options)
    return line.has_order and (len(line.numbers) >= _MANY or line.is_over_repeats or is_even)


class _FirstLine:
    """What the cells of a first line are, and what stands below them."""

    def __init__(self, cells: list[str], below: list[list[str]], options: ReadOptions) -> None:
        self._cells, self._below, self._options = cells, below, options
        self._kinds = [kind_of(cell, options) for cell in cells]
        self.places = [position for position, kind in enumerate(self._kinds) if kind == "number"]
        self.numbers = [cells[position] for position in self.places]
        self.texts = [cell for cell, kind in zip(cells, self._kinds, strict=True) if kind == "text"]

    def _below_each(self, kind: CellKind) -> list[list[str]]:
        return [column for column, one in zip(self._below, self._kinds, strict=True) if one == kind]

    @property
    def is_distinct(self) -> bool:
        """Whether all texts differ from each other."""
        return len(set(self.texts)) == len(self.texts)

    @property
    def is_names(self) -> bool:
        """Whether all texts differ from each other and from those below them, and no date stands over dates."""
        columns = list(zip(self.texts, self._below_each("text"), strict=True))
        has_dates = any(column and all(map(is_time_stamp, (cell, *column))) for cell, column in columns)
        return self.is_new and self.is_distinct and not has_dates

    @property
    def is_new(self) -> bool:
        """Whether no text stands below itself."""
        return all(cell not in column for cell, column in zip(self.texts, self._below_each("text"), strict=True))

    @property
    def is_over_numbers(self) -> bool:
        """Whether a text stands over numbers alone."""
        return any(is_column_of_numbers(column, self._options) for column in self._below_each("text"))

    @property
    def is_over_repeats(self) -> bool:
        """Whether a text stands over texts that occur twice on average."""
        return any(2 * len(set(column)) <= len(column) for column in self._below_each("text") if column)

    @property
    def is_over_texts(self) -> bool:
        """Whether a number stands over texts alone."""
        kinds = [{kind_of(cell, self._options) for cell in column} for column in self._below_each("number")]
        return any("text" in each and "number" not in each for each in kinds)

    @property
    def is_over_fractions(self) -> bool:
        """Whether a number that is no whole one stands below a number."""
        cells = [cell for column in self._below_each("number") for cell in column]
        numbers = [number_of(cell, self._options) for cell in cells]
        return any(number is not None and number % 1 > 0 for number in numbers)

    @property
    def has_order(self) -> bool:
        """Whether the numbers are several that only rise or only fall."""
        return len(self.numbers) >= _FEW and _is_in_order(self.numbers, self._options)


def is_column_of_numbers(cells: Sequence[str], options: ReadOptions) -> bool:
    """Return whether some cells of a column hold numbers alone, besides missing values, and at least one."""
    kinds = {kind_of(cell, options) for cell in cells}
    return "number" in kinds and "text" not in kinds


def kind_of(cell: str, options: ReadOptions) -> CellKind:
    """Return what a cell holds."""
    if cell.strip() in null_marks(options):
        return "missing"
    return "text" if number_of(cell, options) is None else "number"


def _is_position(name: str) -> bool:
    return name.removeprefix("-").isdigit()


def _counts(cells: Sequence[str]) -> bool:
    """Return whether cells are 0, 1, 2 ... or 1, 2, 3 ..., at least two."""
    size = len(cells)
    return size >= 2 and list(cells) in ([str(k) for k in range(size)], [str(k + 1) for k in range(size)])


def _is_in_order(cells: Sequence[str], options: ReadOptions) -> bool:
    """Return whether cells are numbers alone, at least two, that only rise or only fall."""
    numbers = [number for number in (number_of(cell, options) for cell in cells) if number is not None]
    if len(numbers) < len(cells):
        return False
    rises = [after > before for before, after in pairwise(numbers)]
    falls = [after < before for before, after in pairwise(numbers)]
    return len(numbers) >= 2 and (all(rises) or all(falls))


def _is_even(cells: Sequence[str], options: ReadOptions) -> bool:
    """Return whether numbers rise or fall in equal steps, up to a hundredth of a step."""
    numbers = [number_of(cell, options) or 0.0 for cell in cells]
    steps = [after - before for before, after in pairwise(numbers)]
    return max(steps) - min(steps) <= 0.01 * abs(steps[0])
