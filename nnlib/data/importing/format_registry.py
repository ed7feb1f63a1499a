"""The file formats that can be imported.

To add a format, write one module in `nnlib.data.importing.formats` and one line in `FORMATS`. Options of commands,
error messages and the recognition of files all come from that table. Importing this module imports no format: commands
that only list their names start quickly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nnlib.core.errors import DataError, UsageError
from nnlib.core.named_object import load_named
from nnlib.data.importing.source_files import data_files, expand_patterns

if TYPE_CHECKING:
    from nnlib.data.importing.formats.table import Table
    from nnlib.data.importing.read_options import ReadOptions

MAGIC_BYTES = 16
"""Bytes at the beginning of a file by which its format is recognized."""

_NEVER = r"$^"


@dataclass(frozen=True)
class InputFormat:
    r"""How files of a format are recognized and opened.

    - ``opener``: ``module:function``. The function takes the paths of some files and `ReadOptions`; it returns a
    `Table`
      for each file, or for each part of it.
    - ``name``: a regular expression for the end of a file's name; upper and lower case are the same.
    - ``magic``: a regular expression for the first `MAGIC_BYTES` bytes of a file whose name says nothing, decompressed.
      Bytes are matched as Latin-1 characters.
    - ``takes_folders``: the function also opens a folder of files.
    - ``columns_in``: where a job finds the columns of a file that is not on this machine: in a copy of its beginning
      (``start``), or the function reads at any address (``anywhere``). None: jobs cannot import the format, because its
      files belong together or are not read from front to end.
    """

    opener: str
    name: str
    magic: str = _NEVER
    takes_folders: bool = False
    columns_in: Literal["start", "anywhere"] | None = None

    def open(self, files: Sequence[str], options: ReadOptions) -> list[Table]:
        """Open files as tables, in order. Raises `DataError` for files that are not of this format."""
        opener: Callable[[Sequence[str], ReadOptions], list[Table]] = load_named(self.opener)
        return opener(files, options)


_HERE = "nnlib.data.importing.formats"

FORMATS: dict[str, InputFormat] = {
    "csv": InputFormat(f"{_HERE}.csv_files:open_csv", r"\.(csv|tsv|txt)(\.(gz|bz2|zst|xz|zip))?$", columns_in="start"),
    "npz": InputFormat(f"{_HERE}.numpy_files:open_npz", r"\.npz$", r"PK\x03\x04"),
    "npy": InputFormat(f"{_HERE}.numpy_files:open_npy", r"\.npy$", r"\x93NUMPY"),
    "mat": InputFormat(f"{_HERE}.matlab:open_mat", r"\.mat$", r"MATLAB "),
    "idx": InputFormat(f"{_HERE}.idx:open_idx", r"[.-]idx\d?(-ubyte)?(\.gz)?$", r"\0\0[\x08\x09\x0b-\x0e][\x01-\x08]"),
    "parquet": InputFormat(
        f"{_HERE}.parquet:open_parquet", r"\.(parquet|pq)$", r"PAR1", takes_folders=True, columns_in="anywhere"
    ),
    "arrow": InputFormat(
        f"{_HERE}.arrow_files:open_arrow", r"\.(arrow|feather|ipc)$", r"ARROW1\0\0", columns_in="anywhere"
    ),
}
"""Name -> format. Files are recognized by the first one that fits."""


def open_tables(sources: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open files of one format, or one built-in dataset, as tables with the same columns, in order.

    Raises `UsageError` for sources that cannot be named together and `DataError` for files that cannot be read.
    """
    from nnlib.data.importing.builtin_datasets import BUILTIN
    from nnlib.data.importing.formats.table import check_same_columns

    if not sources:
        raise UsageError("name at least one source")
    if is_builtin(sources):
        if len(sources) > 1:
            raise UsageError(f"a built-in data set ({', '.join(BUILTIN)}) is imported alone")
        table = BUILTIN[sources[0]]()
        return [replace(table, label=table.column(options.label, "--label")) if options.label else table]
    sources = source_files(sources, options.format)
    formats = [options.format or detect_format(source) for source in sources]
    if len(set(formats)) > 1:
        raise DataError(f"is {formats[-1]}, but {sources[0]} is {formats[0]}", file=sources[-1])
    tables = open_as(formats[0], sources, options)
    if not any(table.columns for table in tables):
        raise DataError("the file is empty", file=sources[0])
    check_same_columns(tables)
    return tables


def is_builtin(sources: Sequence[str]) -> bool:
    """Return whether one of some sources is a built-in dataset, not a file."""
    from nnlib.data.importing.builtin_datasets import BUILTIN

    return any(source in BUILTIN and not Path(source).exists() for source in sources)


def source_files(sources: Sequence[str], format_: str | None) -> list[str]:
    """Return the files, in order, that patterns, files and folders of this machine name.

    A folder of a format that is read by folders stands for itself. ``format_``: the one that the user names. Raises
    `DataError` for what is missing and for a folder of several formats, `UsageError` for an unknown format.
    """
    from nnlib.data.importing.builtin_datasets import BUILTIN

    sources = expand_patterns(sources)
    for source in sources:
        if not Path(source).exists():
            raise DataError("there is no such file", hint=f"built-in data sets: {', '.join(BUILTIN)}", file=source)
    if format_ is not None and format_ not in FORMATS:
        raise UsageError(f"unknown format {format_!r}; known: {', '.join(FORMATS)}")
    return [file for source in sources for file in _files_of(source, format_)]


def open_as(format_: str, files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open files of one format of `FORMATS` as tables that say how they are read, in order.

    Raises `DataError` for files that are not of this format.
    """
    from nnlib.data.importing.null_values import with_named_marks

    tables = [with_named_marks(table, options) for table in FORMATS[format_].open(files, options)]
    return [replace(table, reading=replace(table.reading or options, format=format_)) for table in tables]


def _files_of(source: str, format_: str | None) -> list[str]:
    """Return the source, or the files of a folder whose format is read file by file."""
    path = Path(source)
    if not path.is_dir():
        return [source]
    names = data_files(sorted(each.name for each in path.iterdir()))
    formats = {name: format_ or format_of_name(name) for name in names}
    known = {name for name in formats.values() if name is not None}
    if not known or any(FORMATS[name].takes_folders for name in known):
        return [source]
    odd = next((name for name, one in formats.items() if one != next(iter(known))), None)
    if odd is not None or len(known) > 1:
        hint = "name those to read with a pattern, such as 'folder/*.csv'"
        raise DataError(f"holds {', '.join(sorted(known))} and other files: {odd}", hint=hint, file=source)
    return [str(path / name) for name in names]


def detect_format(source: str, usual: str | None = None) -> str:
    """Return the name of the format of a file or folder; ``usual`` is that of one that says nothing about itself.

    Raises `DataError` if it cannot be recognized.
    """
    path = Path(source)
    if path.is_dir():
        return next(name for name, format_ in FORMATS.items() if format_.takes_folders)
    by_name = format_of_name(path.name)
    if by_name is not None and by_name != "csv":
        return by_name
    name = format_of_content(source) or by_name or usual  # text has no first bytes of its own, other formats have
    if name is None:
        raise DataError(
            "its format is not recognized", hint=f"name it with --format: {', '.join(FORMATS)}", file=source
        )
    return name


def format_of_name(file_name: str) -> str | None:
    """Return the name of the format that a file's name says it has; None if it says nothing."""
    return next((name for name, format_ in FORMATS.items() if re.search(format_.name, file_name, re.IGNORECASE)), None)


def format_of_content(file: str) -> str | None:
    """Return the name of the format that a file's first bytes say it has; a zip archive says it by its members.

    Raises `DataError` if it cannot be read.
    """
    from nnlib.data.importing.compression import compression_of, decompressed_head, zip_members

    head = decompressed_head(file, MAGIC_BYTES)
    if compression_of(head) == "zip":
        inside = {format_of_name(name) for name in zip_members(file)}
        return "npz" if "npy" in inside else "csv" if "csv" in inside else None
    text = head.decode("latin-1")
    return next((name for name, format_ in FORMATS.items() if re.match(format_.magic, text)), None)
