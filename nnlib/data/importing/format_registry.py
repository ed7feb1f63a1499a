"""The file formats that can be imported.

To add a format, write one module in `nnlib.data.importing.formats` and one line in `FORMATS`. Options of commands,
error messages and the recognition of files all come from that table. Importing this module imports no format: commands
that only list their names start quickly.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nnlib.core.errors import DataError, UsageError
from nnlib.core.named_object import load_named
from nnlib.core.notes import note
from nnlib.data.importing.source_files import data_files, expand_patterns, files_within

if TYPE_CHECKING:
    from nnlib.data.importing.formats.table import Table
    from nnlib.data.importing.read_options import ReadOptions

MAGIC_BYTES = 64
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
    - ``takes_folders``: a folder of such files is one table, in which other files (a log, a licence) may lie, too.
    - ``is_tree``: a folder is opened as a whole, by its path: where a file lies says what it is.
    - ``columns_in``: where a job finds the columns of a file that is not on this machine: in a copy of its beginning
      (``start``), or the function reads at any address (``anywhere``). None: jobs cannot import the format, because its
      files belong together or are not read from front to end.
    """

    opener: str
    name: str
    magic: str = _NEVER
    takes_folders: bool = False
    is_tree: bool = False
    columns_in: Literal["start", "anywhere"] | None = None

    def open(self, files: Sequence[str], options: ReadOptions) -> list[Table]:
        """Open files as tables, in order. Raises `DataError` for files that are not of this format."""
        opener: Callable[[Sequence[str], ReadOptions], list[Table]] = load_named(self.opener)
        return opener(files, options)


_HERE = "nnlib.data.importing.formats"

_SVMLIGHT = r"""(?x)
    (?=[^\n]*[ \t]\d+:[-+.\d])                            # a line with a pair, such as 3:0.5, which is
    [-+]?[.\d][-+.\deE]* (?:[ \t]+qid:\d+)?             # a number, a query number,
    (?:[ \t]+\d+:[-+.\deE]+)* (?:[ \t]+\d*(?::[-+.\deE]*)?)?   # pairs, the last one perhaps cut,
    [ \t]*(?:\#[^\n]*)?(?:\r|\n|\Z)                         # and a comment
"""
"""The first line of a file of the svmlight format, or its beginning."""

FORMATS: dict[str, InputFormat] = {
    "csv": InputFormat(
        f"{_HERE}.csv_files:open_csv",
        r"\.(csv|tsv|tab|txt|data|dat|test|train)(\.(gz|bz2|zst|xz|zip))?$",
        columns_in="start",
    ),
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
    "svmlight": InputFormat(
        f"{_HERE}.svmlight:open_svmlight", r"\.(svmlight|libsvm|svm)(\.(gz|bz2|zst|xz))?$", _SVMLIGHT
    ),
    "jsonl": InputFormat(
        f"{_HERE}.json_lines:open_json_lines", r"\.(jsonl|ndjson)(\.(gz|bz2|zst|xz))?$", columns_in="start"
    ),
    "text": InputFormat(f"{_HERE}.plain_text:open_text", _NEVER, columns_in="start"),
    "images": InputFormat(
        f"{_HERE}.images:open_images",
        r"\.(png|jpe?g|bmp|gif|webp|tiff?|p[bgpn]m|tar(\.(gz|bz2|zst|xz))?|tgz|tbz2|txz)$",
        r"\x89PNG\r\n|\xff\xd8\xff",
        is_tree=True,
    ),
}
"""Name -> format. Files are recognized by the first one that fits."""


def open_tables(sources: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open files of one format, or one built-in dataset, as tables with the same columns, in order.

    Raises `UsageError` for sources that cannot be named together and `DataError` for files that cannot be read.
    """
    from nnlib.data.importing.builtin_datasets import BUILTIN
    from nnlib.data.importing.formats.table import check_same_columns
    from nnlib.data.importing.hive_partitions import partition_names

    if not sources:
        raise UsageError("name at least one source")
    if is_builtin(sources):
        if len(sources) > 1:
            raise UsageError(f"a built-in data set ({', '.join(BUILTIN)}) is imported alone")
        tables = BUILTIN[sources[0]](options.folder)
        label = options.label
        return [replace(table, label=table.column(label, "--label")) for table in tables] if label else tables
    if options.folder is not None:
        raise UsageError("--from is for a built-in data set that is read from files: fashion-mnist")
    files = source_files(sources, options.format)
    formats = [options.format or detect_format(file) for file in files]
    if len(set(formats)) > 1:
        raise DataError(f"is {formats[-1]}, but {files[0]} is {formats[0]}", file=files[-1])
    options = replace(options, partitions=options.partitions or partition_names(sources, files))
    tables = open_as(formats[0], files, options)
    if not any(table.columns for table in tables):
        raise DataError("the file is empty", file=files[0])
    check_same_columns(tables)
    return tables


def is_builtin(sources: Sequence[str]) -> bool:
    """Return whether one of some sources is a built-in dataset.

    A file of that name goes first, and a folder of files, but not a folder that holds a dataset or is about to: the
    usual output of ``nnjobs data import digits -o digits``.
    """
    from nnlib.data.importing.builtin_datasets import BUILTIN

    return any(source in BUILTIN and not _holds_input(Path(source)) for source in sources)


def _holds_input(path: Path) -> bool:
    from nnlib.data.dataset import MANIFEST

    if not path.is_dir():
        return path.exists()
    return bool(data_files(os.listdir(path))) and not (path / MANIFEST).exists()


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
    from nnlib.data.importing.hive_partitions import with_partitions
    from nnlib.data.importing.null_values import with_named_marks
    from nnlib.data.importing.text.text_table import with_tokens

    tables = [with_named_marks(table, options) for table in FORMATS[format_].open(files, options)]
    tables = [replace(table, reading=replace(table.reading or options, format=format_)) for table in tables]
    tables = [with_partitions(table, options.partitions) for table in tables]
    return [with_tokens(table, options.text) for table in tables] if options.text else tables


def _files_of(source: str, format_: str | None) -> list[str]:
    """Return the source, or the files of a folder whose format is read file by file."""
    if not Path(source).is_dir() or (format_ is not None and FORMATS[format_].is_tree):
        return [source]
    files = files_within(source)
    return [source] if format_ is None and is_tree(files) else files_of_one_format(source, files, format_)


def is_tree(files: Sequence[str]) -> bool:
    """Return whether the files of a folder make it one that is opened as a whole: most are images, and none of another
    format, unless they may be words about them (``README.txt``)."""
    formats = Counter(format_of_name(file.rpartition("/")[2]) for file in files)
    trees = sum(count for name, count in formats.items() if name is not None and FORMATS[name].is_tree)
    others = {name for name in formats if name is not None and not FORMATS[name].is_tree}
    return trees > len(files) / 2 and others <= {"csv"}


def files_of_one_format(folder: str, files: Sequence[str], format_: str | None) -> list[str]:
    """Return the files of a folder that are to be read: all, or those of its only format that folders are made of.

    ``format_``: the one that the user names. Raises `DataError` for a folder of several formats.
    """
    formats = {file: format_ or format_of_name(file.rpartition("/")[2]) for file in files}
    if any(name is not None and not FORMATS[name].is_tree for name in formats.values()):  # else pictures of the data
        formats = {file: None if name is not None and FORMATS[name].is_tree else name for file, name in formats.items()}
    known = sorted({name for name in formats.values() if name is not None})
    others = [file for file, name in formats.items() if name is None]
    if len(known) > 1 or (known and others and not FORMATS[known[0]].takes_folders):
        what = f"{' and '.join(known)} files" if known[1:] else f"{known[0]} and other files: {others[0]}"
        hint = "name those to read with a pattern, such as 'folder/*.csv'"
        raise DataError(f"holds {what}", hint=hint, file=folder)
    if known and others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        note(f"{folder}: skipped {others[0]}{more}: no {known[0]} by name")
    return [file for file in files if file not in others] if known else list(files)


def detect_format(source: str, usual: str | None = None) -> str:
    """Return the name of the format of a file; ``usual`` is that of one that says nothing about itself.

    Raises `DataError` if it cannot be recognized.
    """
    if Path(source).is_dir():
        return next(name for name, format_ in FORMATS.items() if format_.is_tree)
    by_name = format_of_name(Path(source).name)
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
        members = zip_members(file)
        inside = {format_of_name(name) for name in members}
        known = "npz" if "npy" in inside else "csv" if "csv" in inside else None
        return "images" if is_tree(members) else known
    text = head.decode("latin-1")
    return next((name for name, format_ in FORMATS.items() if re.match(format_.magic, text)), None)
