"""Columns that stand in the names of folders, ``year=2024/part-0.parquet``, as Hive, Spark and DuckDB write them.

Every ``name=value`` folder between the folder or pattern that a user names and a file is a column of that file, as text
(which is read as a number where a number is wanted). A column in the file itself goes before one of its folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote

import pyarrow as pa

from nnlib.core.errors import DataError
from nnlib.data.columns import Columns
from nnlib.data.importing.formats.table import Role, Table, count_rows

_MISSING = "__HIVE_DEFAULT_PARTITION__"
_WILD = "*?["


def partition_names(sources: Sequence[str], files: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns in the folders of ``files``, all of which ``sources`` name, in order.

    A file that is named itself has none. Raises `DataError` for files with other such folders than the first.
    """
    named = [tuple(partition_values(_below(sources, file))) for file in files]
    for file, names in zip(files, named, strict=True):
        if set(names) != set(named[0]):
            odd = sorted(set(names) ^ set(named[0]))[0]
            raise DataError(f"differs from {files[0]} in its folders: only one is in a folder {odd}=...", file=file)
    return named[0] if named else ()


def partition_values(path: str) -> dict[str, str | None]:
    """Return the columns in a file's path: name -> value, None where the folder says that it is missing."""
    folders = [folder.partition("=") for folder in path.split("/")[:-1] if "=" in folder]
    return {unquote(name): None if value == _MISSING else unquote(value) for name, _, value in folders if name}


def partition_folders(path: str) -> str:
    """Return the part of a file's path that `partition_values` needs: its ``name=value`` folders."""
    return "/".join(folder for folder in path.split("/")[:-1] if "=" in folder)


def with_partitions(table: Table, names: Sequence[str]) -> Table:
    """Return the table of a file with the columns of these names that its path has and the file itself has not."""
    values = partition_values(table.file)
    added = {name: values[name] for name in names if name in values and name not in table.columns}
    if not added or not table.columns:
        return table

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        within = {name: role for name, role in roles.items() if name not in added}
        for chunk in table.chunks(within or {table.columns[0]: "value"}):
            rows = count_rows(chunk)
            columns = {
                name: pa.nulls(rows, pa.string()) if value is None else pa.repeat(pa.scalar(value), rows)
                for name, value in added.items()
            }
            yield {name: columns[name] if name in added else chunk[name] for name in roles}

    return replace(table, columns=(*table.columns, *added), chunks=chunks)


def _below(sources: Sequence[str], file: str) -> str:
    """Return the path of a file below the folder or pattern that names it; of a file that is a source its name."""
    if file in sources:
        return file.rpartition("/")[2]
    roots = []
    for source in sources:
        wild = min((source.find(mark) for mark in _WILD if mark in source), default=None)
        root = source.rstrip("/") + "/" if wild is None else source[:wild].rpartition("/")[0] + "/"
        if file.startswith(root) or root in ("/", "./"):
            roots.append(root)
    root = max(roots, key=len, default="")
    return file.removeprefix(root)
