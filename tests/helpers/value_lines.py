"""A file format for tests, as small as one can be: a value per line; its sign is the label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from nnlib.core.errors import DataError
from nnlib.data.columns import Columns
from nnlib.data.importing.formats.table import Role, Table
from nnlib.data.importing.read_options import ReadOptions


def open_value_lines(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open files of one value per line as tables with the columns ``value`` and ``sign``."""
    return [_table(file) for file in files]


def _table(file: str) -> Table:
    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        lines = Path(file).read_text("utf-8").split()
        try:
            values = [float(line) for line in lines]
        except ValueError as error:
            raise DataError(str(error), file=file) from None
        columns = {"value": pa.array(values), "sign": pa.array(["-" if value < 0 else "+" for value in values])}
        yield {name: columns[name] for name in roles}

    return Table(file, ("value", "sign"), chunks, label="sign")
