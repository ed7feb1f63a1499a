"""A file of any format as a table of named columns, and chunks of its rows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from nnlib.core.errors import DataError, UsageError
from nnlib.core.listing import listed
from nnlib.data.columns import Columns
from nnlib.data.importing.read_options import ReadOptions

Role = Literal["number", "text", "value"]
"""What a column is read as: numbers, text, or its own type (text where the format knows no types)."""

_UNNAMED = re.compile(r"Unnamed: (\d+)(\.\d+)*")
"""What pandas calls a column without a name in the place of this number; once more around it appends a number."""

MOST_COLUMNS = 65_536
MOST_NUMBERS = 1 << 20
"""The most columns of a table and numbers of a row: wider data would fill the memory and fits no dense net."""


@dataclass(frozen=True)
class Table:
    """A file, or a part of one.

    - ``columns``: the names of its columns, in order
    - ``chunks(roles)``: yields all rows in order, in chunks that hold the columns named in ``roles``
    - ``shapes``: the shape of one row of every column of vectors
    - ``types``: the numpy type names that the file states
    - ``label``, ``features``, ``extra``: the columns that the format itself says are the label (such as the labels of
    an
      IDX file), the features, and columns to keep; they are used where the user names none
    - ``rows``: their number, None if it is not known before they are read
    - ``reading``: how it is read, as far as the format found out; it reads other files of the same kind alike
    - ``index``: the columns that only number the rows, which are no features
    - ``key``: columns that say which row is which, to stand beside predictions
    """

    file: str
    columns: tuple[str, ...]
    chunks: Callable[[Mapping[str, Role]], Iterator[Columns]]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None
    features: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    rows: int | None = None
    reading: ReadOptions | None = None
    index: tuple[str, ...] = ()
    key: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.columns) > MOST_COLUMNS:
            raise DataError(f"has {len(self.columns):,} columns, more than {MOST_COLUMNS:,}", file=self.file)
        for name, shape in self.shapes.items():
            if not 1 <= math.prod(shape) <= MOST_NUMBERS:
                raise DataError(
                    f"a row has {' x '.join(map(str, shape))} numbers, it may have 1 to {MOST_NUMBERS:,}",
                    file=self.file,
                    column=name,
                )

    @property
    def row_numbers(self) -> tuple[str, ...]:
        """The columns that only number the rows: those of ``index``, those that pandas names ``Unnamed: 0``, and at the
        beginning those that it names ``Unnamed: 1`` and so on."""
        first = True
        names = []
        for position, name in enumerate(self.columns):
            match = _UNNAMED.fullmatch(name)
            first = first and match is not None and int(match[1]) <= position
            if name in self.index or (match is not None and (first or match[1] == "0")):
                names.append(name)
        return tuple(names)

    def column(self, wanted: str, what: str) -> str:
        """Return the name of the column that is named ``wanted`` or has that number (0 is the first, -1 the last).

        Raises `UsageError` if there is none; ``what`` is the option that names it.
        """
        if wanted in self.columns:
            return wanted
        try:
            return self.columns[int(wanted)]
        except (ValueError, IndexError):
            pass
        columns = listed(self.columns, 20)
        raise UsageError(f"{what}: there is no column {wanted!r}; columns: {columns}", file=self.file)


def check_same_columns(tables: Sequence[Table]) -> None:
    """Raise `DataError` unless all tables have the same columns, with rows of the same shapes, where they have rows."""
    first = next((table for table in tables if table.rows != 0), tables[0])
    for table in tables:
        if set(table.columns) != set(first.columns):
            odd = sorted(set(table.columns) ^ set(first.columns))
            raise DataError(f"has other columns than {first.file}: {', '.join(odd[:10])}", file=table.file)
        if table.shapes != first.shapes and table.rows != 0:
            raise DataError(
                f"has rows of shape {dict(table.shapes)}, {first.file} of {dict(first.shapes)}", file=table.file
            )


def count_rows(columns: Columns) -> int:
    """Return the number of rows of a chunk."""
    return len(next(iter(columns.values()))) if columns else 0


def rechunk(chunks: Iterator[Columns], rows: int) -> Iterator[Columns]:
    """Yield the same rows in chunks of exactly ``rows`` (the last may be smaller), whatever chunks they come in."""
    waiting: list[Columns] = []
    count = 0
    for chunk in chunks:
        size = count_rows(chunk)
        start = 0
        while size - start >= rows - count:
            stop = start + rows - count
            waiting.append(_cut(chunk, start, stop))
            yield _joined(waiting)
            waiting, count, start = [], 0, stop
        if start < size:
            waiting.append(_cut(chunk, start, size))
            count += size - start
    if waiting:
        yield _joined(waiting)


def _cut(chunk: Columns, start: int, stop: int) -> Columns:
    return {name: column[start:stop] for name, column in chunk.items()}


def _joined(chunks: list[Columns]) -> Columns:
    if len(chunks) == 1:
        return chunks[0]
    joined = {}
    for name, first in chunks[0].items():
        parts = [chunk[name] for chunk in chunks]
        joined[name] = np.concatenate(parts) if isinstance(first, np.ndarray) else pa.concat_arrays(parts)
    return joined


def rows_per_chunk(row_bytes: int) -> int:
    """Return the number of rows that take about 4 MiB, between 16 and 65,536."""
    return min(65_536, max(16, (4 << 20) // max(1, row_bytes)))
