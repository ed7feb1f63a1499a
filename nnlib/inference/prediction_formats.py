"""The formats of a prediction file. A new one is one file with a `PredictionFile`, and one line in `FORMATS`.

Importing this module imports no format: a command that only lists their names starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol

from nnlib.core.errors import UsageError
from nnlib.core.named_object import load_named

if TYPE_CHECKING:
    import pyarrow as pa

STANDARD_OUTPUT = "-"
"""The address that means standard output."""


class PredictionFile(Protocol):
    """A file of predictions that is being written."""

    def write(self, table: pa.Table) -> None:
        """Write rows, as `nnlib.inference.prediction_table.PredictionTable` makes them. All tables have one schema."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...

    def abandon(self) -> None:
        """Write nothing any more: called instead of `close` after an error."""
        ...


@dataclass(frozen=True)
class PredictionFormat:
    """``writer``: ``module:class`` of a `PredictionFile`, made from a binary stream. ``suffixes``: of its files."""

    writer: str
    suffixes: tuple[str, ...]

    def open(self, stream: BinaryIO) -> PredictionFile:
        """Return a file of this format that is written into ``stream``."""
        file: PredictionFile = load_named(self.writer)(stream)
        return file


FORMATS: dict[str, PredictionFormat] = {
    "csv": PredictionFormat("nnlib.inference.csv_predictions:CsvPredictions", (".csv",)),
    "tsv": PredictionFormat("nnlib.inference.csv_predictions:TsvPredictions", (".tsv",)),
    "jsonl": PredictionFormat("nnlib.inference.json_predictions:JsonPredictions", (".jsonl", ".ndjson")),
    "parquet": PredictionFormat("nnlib.inference.parquet_predictions:ParquetPredictions", (".parquet", ".pq")),
}
"""Name -> format."""

COMPRESSED = ".gz"
"""Behind the suffix of a text format: the file is compressed by gzip."""

_OTHER_COMPRESSED = (".bz2", ".xz", ".zip", ".zst")


def named_format(output: str) -> str | None:
    """Return the format that the suffix of an address names; None if it names none."""
    name = PurePosixPath(output).name.lower()
    suffix = PurePosixPath(name.removesuffix(COMPRESSED)).suffix
    for format_, kind in FORMATS.items():
        if suffix in kind.suffixes and not (format_ == "parquet" and name.endswith(COMPRESSED)):
            return format_
    return None


def choose_format(output: str, wanted: str | None) -> str:
    """Return the format of a prediction file: ``wanted``, or that of the address's suffix (`STANDARD_OUTPUT`: csv; no
    suffix: parquet, as earlier versions wrote). Raises `UsageError` for a suffix that names none, or another than
    ``wanted``: a file ``.csv`` never holds Parquet."""
    named = named_format(output)
    if wanted is not None:
        if wanted not in FORMATS:
            raise UsageError(f"unknown format {wanted!r}; known: {', '.join(FORMATS)}")
        _check_compression(output, wanted)
        if named not in (None, wanted):
            raise UsageError(f"-o {output}: the name says {named}, and --format {wanted}", hint="leave one of them out")
        return wanted
    if output == STANDARD_OUTPUT:
        return "csv"
    if named is not None:
        return named
    name = PurePosixPath(output).name.lower()
    if not PurePosixPath(name).suffix:
        return "parquet"
    known = ", ".join(suffix for kind in FORMATS.values() for suffix in kind.suffixes)
    raise UsageError(f"-o {output}: {PurePosixPath(name).suffix} names no format: use --format, or one of {known}")


def _check_compression(output: str, format_: str) -> None:
    """Raise `UsageError` for the suffix of a compressed file that is not written so."""
    suffix = PurePosixPath(output).suffix.lower()
    if suffix in _OTHER_COMPRESSED or (suffix == COMPRESSED and format_ == "parquet"):
        hint = "Parquet compresses by itself" if format_ == "parquet" else f"use {COMPRESSED}, or no such suffix"
        raise UsageError(f"-o {output}: {format_} is not written as {suffix}", hint=hint)


def is_compressed(output: str, format_: str) -> bool:
    """Return whether a prediction file is to be compressed as a whole: Parquet compresses its columns itself."""
    return output.lower().endswith(COMPRESSED) and format_ != "parquet"
