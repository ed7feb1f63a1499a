"""Raw files of any known format as `Table`s. A new format is one file in `importers` and one line in `IMPORTERS`."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnlib.core.errors import DataError, UsageError
from nnlib.data.importing.builtin_datasets import BUILTIN
from nnlib.data.importing.formats.csv_files import open_csv
from nnlib.data.importing.formats.idx import open_idx
from nnlib.data.importing.formats.matlab import open_mat
from nnlib.data.importing.formats.numpy_files import open_npy, open_npz
from nnlib.data.importing.formats.parquet import open_parquet
from nnlib.data.importing.formats.table import ReadOptions, Table, check_same


@dataclass(frozen=True)
class Importer:
    """How to know a format (by the end of its name, or its first bytes) and how to open its files."""

    open: Callable[[Sequence[str], ReadOptions], list[Table]]
    names: str
    magic: str


IMPORTERS: dict[str, Importer] = {
    "csv": Importer(open_csv, r"\.(csv|tsv|txt)(\.gz)?$", r"$^"),
    "npz": Importer(open_npz, r"\.npz$", r"PK\x03\x04"),
    "npy": Importer(open_npy, r"\.npy$", r"\x93NUMPY"),
    "mat": Importer(open_mat, r"\.mat$", r"MATLAB "),
    "idx": Importer(open_idx, r"[.-]idx\d?(-ubyte)?(\.gz)?$", r"\0\0[\x08\x09\x0b-\x0e][\x01-\x08]"),
    "parquet": Importer(open_parquet, r"\.(parquet|pq)$", r"PAR1"),
}


def open_tables(sources: Sequence[str], options: ReadOptions) -> list[Table]:
    """The sources, in order, as tables with the same columns."""
    if not sources:
        raise UsageError("name at least one source")
    if any(_builtin(source) for source in sources):
        if len(sources) > 1:
            raise UsageError(f"a built-in data set ({', '.join(BUILTIN)}) is imported alone")
        table = BUILTIN[sources[0]]()
        return [replace(table, label=table.column(options.label, "--label")) if options.label else table]
    for source in sources:
        if not Path(source).exists():
            raise DataError("there is no such file", hint=f"built-in data sets: {', '.join(BUILTIN)}", file=source)
    if options.format is not None and options.format not in IMPORTERS:
        raise UsageError(f"unknown format {options.format!r}; known: {', '.join(IMPORTERS)}")
    formats = [options.format or detect(source) for source in sources]
    if len(set(formats)) > 1:
        raise DataError(f"is {formats[-1]}, but {sources[0]} is {formats[0]}", file=sources[-1])
    tables = IMPORTERS[formats[0]].open(sources, options)
    check_same(tables)
    return tables


def _builtin(source: str) -> bool:
    return source in BUILTIN and not Path(source).exists()


def detect(source: str) -> str:
    """The format of a file: by its name, else by its first bytes."""
    path = Path(source)
    if path.is_dir():
        return "parquet"
    for name, importer in IMPORTERS.items():
        if re.search(importer.names, path.name, re.IGNORECASE):
            return name
    head = _head(path)
    for name, importer in IMPORTERS.items():
        if re.match(importer.magic, head.decode("latin-1")):
            return name
    raise DataError("cannot tell its format", hint=f"say it with --format: {', '.join(IMPORTERS)}", file=source)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
            if head[:2] != b"\x1f\x8b":
                return head
            stream.seek(0)
            return gzip.GzipFile(fileobj=stream).read(16)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"is not readable ({error})", file=str(path)) from None
