"""The files that an import by a job reads: which there are, how large they are, and the columns of the first."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from nnlib.core.errors import DataError, UsageError
from nnlib.core.notes import note
from nnlib.data.importing.format_registry import (
    FORMATS,
    files_of_one_format,
    format_of_content,
    format_of_name,
    open_as,
    open_tables,
)
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.hive_partitions import partition_names
from nnlib.data.importing.local_copies import head_copy, is_pipe, local_copies
from nnlib.data.importing.read_options import ReadOptions
from nnlib.data.importing.source_files import expand_patterns, files_within
from nnlib.storage import file_at

PARALLEL_REQUESTS = 8
"""Sizes that are requested at the same time."""


def job_formats() -> list[str]:
    """Return the names of the formats that jobs can import: their files are read one by one, from front to end."""
    return [name for name, format_ in FORMATS.items() if format_.columns_in is not None]


def list_input_files(sources: Sequence[str], options: ReadOptions) -> tuple[list[str], ReadOptions]:
    """Return the addresses of the files in order, and ``options`` with their format and the columns of their folders.

    A folder stands for its files and those of its folders, sorted by name, without hidden and marker files (``.name``,
    ``_SUCCESS``), a pattern for what it names. No ``format`` in the options: each name says its format, or else the
    file's first bytes. Raises `DataError` for a source without files and for files of several formats, and `UsageError`
    for a format that jobs cannot import.
    """
    format_ = options.format
    if format_ is not None and format_ not in job_formats():
        raise UsageError(
            f"a job imports {' and '.join(job_formats())} files, not {format_}", hint="import them without -r"
        )
    if pipe := next(filter(is_pipe, sources), None):
        raise UsageError("a job cannot read a pipe", hint="import it without -r, or from a file", file=pipe)
    files = [file for source in expand_patterns(sources) for file in _files(source, format_)]
    formats = {file: format_ or _format(file) for file in files}
    first = formats[files[0]]
    odd = next((file for file in files if formats[file] != first), None)
    if odd is not None:
        raise DataError(f"is {formats[odd]}, but {files[0]} is {first}", file=odd)
    return files, replace(options, format=first, partitions=partition_names(sources, files))


def _files(source: str, format_: str | None) -> list[str]:
    files = files_within(source)
    return files if files == [source] else files_of_one_format(source, files, format_)


def _format(file: str) -> str:
    name = format_of_name(file.rpartition("/")[2])
    if name is None:
        with head_copy(file) as path:
            name = format_of_content(path)
    if name is None:
        known = ", ".join(job_formats())
        raise DataError("its format is not recognized", hint=f"name it with --format: {known}", file=file)
    if name not in job_formats():
        raise UsageError(
            f"a job imports {' and '.join(job_formats())} files, not {name}", hint="import it without -r", file=file
        )
    return name


def file_size(file: str) -> int:
    """Return the bytes of a file at any address."""
    folder, name = file_at(file)
    return folder.size(name)


def file_sizes(files: Sequence[str]) -> list[int]:
    """Return the bytes of each file."""
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        return list(pool.map(file_size, files))


def read_columns(files: Sequence[str], options: ReadOptions) -> Table:
    """Return a table with the columns of the first file that has rows, from which rows cannot be read.

    Its options read the other files as well; ``options.format`` must be set. Raises `DataError` if all files are empty.
    """
    first: Table | None = None
    for file in files:
        if file_size(file) == 0:
            note(f"{file}: skipped, it is empty")
            continue
        table = _columns_of(file, options)
        if table.rows != 0:
            return table
        first = first or (table if table.columns else None)
    if first is None:
        raise DataError("the file is empty", file=files[0])
    return first


def _columns_of(file: str, options: ReadOptions) -> Table:
    assert options.format is not None
    if FORMATS[options.format].columns_in == "anywhere":
        return open_as(options.format, [file], options)[0]
    with head_copy(file) as path:
        return replace(open_as(options.format, [path], options)[0], file=file)


@contextlib.contextmanager
def open_input_file(file: str, options: ReadOptions) -> Iterator[tuple[Table, str]]:
    """Open a file, copied to this machine if it is on another, for the block.

    The result is its table and the SHA-256 of its bytes. Errors name the file's address, not the copy.
    """
    with local_copies([file]) as paths:
        with Path(paths[0]).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        (table,) = open_tables(paths, options)
        yield replace(table, file=file), digest
