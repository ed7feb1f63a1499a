"""One raw file as a table of named columns, whatever its format."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from nnlib.core.errors import DataError, UsageError
from nnlib.data.columns import Columns

Role = Literal["number", "text", "value"]
"""What a column is wanted as: numbers, text, or as it comes (text where the format knows no types)."""


MOST_COLUMNS = 65_536
MOST_NUMBERS = 1 << 20
"""Columns of a table and numbers in a row: what is wider is no data for a dense net, but would fill the memory."""


@dataclass(frozen=True)
class ReadOptions:
    """How to read raw files; None means by looking. ``features`` and ``label`` name arrays or columns.

    ``likely_features`` and ``likely_label`` are names to look for before the usual ones, where the user gave none.
    """

    format: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    features: tuple[str, ...] = ()
    label: str | None = None
    likely_features: tuple[str, ...] = ()
    likely_label: str | None = None


@dataclass(frozen=True)
class Table:
    """A raw file. ``chunks(roles)`` streams the wanted columns, all chunks together being all rows in order.

    ``shapes`` holds the shape of one row of every column that is a vector, ``types`` the numpy type names that the
    file states. ``label``, ``features`` and ``kept`` are the columns that the format itself means so (an IDX file's
    labels), used where the user names none.
    """

    file: str
    columns: tuple[str, ...]
    chunks: Callable[[Mapping[str, Role]], Iterator[Columns]]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None
    features: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    rows: int | None = None

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

    def column(self, wanted: str, what: str) -> str:
        """The column of that name, or at that position (0 is the first, -1 the last)."""
        if wanted in self.columns:
            return wanted
        try:
            return self.columns[int(wanted)]
        except (ValueError, IndexError):
            pass
        shown = ", ".join(self.columns[:20]) + (", ..." if len(self.columns) > 20 else "")
        raise UsageError(f"{what}: there is no column {wanted!r}; columns: {shown}", file=self.file)


def check_same(tables: Sequence[Table]) -> None:
    """Refuse to concatenate tables whose columns differ."""
    first = tables[0]
    for table in tables[1:]:
        if set(table.columns) != set(first.columns):
            odd = sorted(set(table.columns) ^ set(first.columns))
            raise DataError(f"has other columns than {first.file}: {', '.join(odd[:10])}", file=table.file)
        if table.shapes != first.shapes:
            raise DataError(
                f"has rows of shape {dict(table.shapes)}, {first.file} of {dict(first.shapes)}", file=table.file
            )


def length(columns: Columns) -> int:
    """Rows of a chunk."""
    return len(next(iter(columns.values()))) if columns else 0


def rechunk(chunks: Iterator[Columns], rows: int) -> Iterator[Columns]:
    """The same rows in chunks of exactly ``rows`` (the last may be smaller), so nothing depends on the source's own."""
    waiting: list[Columns] = []
    count = 0
    for chunk in chunks:
        size = length(chunk)
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


def chunk_rows(row_bytes: int) -> int:
    """Rows of about 4 MiB, between 16 and 65,536."""
    return min(65_536, max(16, (4 << 20) // max(1, row_bytes)))
