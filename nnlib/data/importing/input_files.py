"""The raw files that an import by a job reads: which there are, what the first one looks like, and each by itself."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from nnlib.core.errors import DataError, UsageError
from nnlib.data.importing.format_registry import IMPORTERS, open_tables
from nnlib.data.importing.formats.csv_files import open_csv
from nnlib.data.importing.formats.parquet import open_parquet
from nnlib.data.importing.formats.table import ReadOptions, Table
from nnlib.data.importing.local_copies import head_copy, local_copies
from nnlib.storage import file_at

FORMATS = ("csv", "parquet")
"""Formats whose files are read one by one, from front to end."""

LOOKS = 8
"""Sizes asked for at once."""


def raw_files(sources: Sequence[str], format_: str | None) -> tuple[list[str], str]:
    """The addresses of the files in order, and their format. A directory stands for its files, sorted by name, without
    those that are hidden or marked (``_SUCCESS``).

    Raises `DataError` where there are none or of several formats, `UsageError` for formats that a job does not read.
    """
    if format_ is not None and format_ not in FORMATS:
        raise UsageError(f"a job imports {' and '.join(FORMATS)} files, not {format_}", hint="import them without -r")
    files = [file for source in sources for file in _files(source)]
    formats = {file: format_ or _format(file) for file in files}
    first = formats[files[0]]
    odd = next((file for file in files if formats[file] != first), None)
    if odd is not None:
        raise DataError(f"is {formats[odd]}, but {files[0]} is {first}", file=odd)
    return files, first


def _files(source: str) -> list[str]:
    place, name = file_at(source.rstrip("/") or source)
    within = [each for each in place.names(name) if not each.startswith(("_", "."))]
    if within:
        return [f"{source.rstrip('/')}/{each}" for each in within]
    if not place.exists(name) or ("://" not in source and Path(source).is_dir()):
        raise DataError("there is no file", file=source)
    return [source]


def _format(file: str) -> str:
    for name, importer in IMPORTERS.items():
        if re.search(importer.names, file.rpartition("/")[2], re.IGNORECASE):
            if name not in FORMATS:
                raise UsageError(
                    f"a job imports {' and '.join(FORMATS)} files, not {name}", hint="import it without -r", file=file
                )
            return name
    raise DataError("cannot tell its format", hint=f"say it with --format: {', '.join(FORMATS)}", file=file)


def sizes(files: Sequence[str]) -> list[int]:
    """Bytes of each file."""

    def size(file: str) -> int:
        place, name = file_at(file)
        return place.size(name)

    with ThreadPoolExecutor(LOOKS) as pool:
        return list(pool.map(size, files))


def look(file: str, options: ReadOptions) -> Table:
    """A file's columns; its rows cannot be read through this."""
    if options.format == "parquet":
        return open_parquet([file], options)[0]
    with head_copy(file) as path:
        return replace(open_csv([path], options)[0], file=file)


@contextlib.contextmanager
def opened(file: str, options: ReadOptions) -> Iterator[tuple[Table, str]]:
    """A file, copied to this machine if it lies elsewhere, and the SHA-256 of its bytes. Errors name its address."""
    with local_copies([file]) as paths:
        with Path(paths[0]).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        (table,) = open_tables(paths, options)
        yield replace(table, file=file), digest
