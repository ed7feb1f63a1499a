"""Generated tables, and the files that hold them: what the differential test of importing and predicting reads.

A `FileCase` is a pandas frame, the way it is written (format, header, delimiter, quoting, encoding, missing marks,
compression) and the options by which the command line reads it. `expected` reads the file again with pandas or DuckDB:
the names, types and values that the import must find.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

LABEL = "the label"

FileFormat = Literal["csv", "parquet", "duckdb", "feather", "npz"]

NAMES = (
    *("age", "Age", "two words", "a,b", 'quo"ted', "semi;colon", "400.5", "7", "größe"),
    *("x_1", "tab\there", "pipe|d", "NA", "row", "y", "-1", "0"),
)
WORDS = (
    *("red", "dark blue", "grün", "a,b", 'say "hi"', "two\nlines"),
    *("semi;colon", "x|y", "tab\there", "#1", "it's", "Nobody"),
)
"""Categories of text. None is a missing mark, a number, a date or a boolean: those have tests of their own."""
LABELS = ("setosa", "iris virginica", "versi,color", "Ärger")


@dataclass(frozen=True)
class FileCase:
    """A table and how it is written. ``marks``: what missing values are written as, one of them at a time."""

    frame: pd.DataFrame
    format: FileFormat
    categorical: tuple[str, ...]
    classes: bool
    delimiter: str = ","
    quoting: Literal[0, 1, 2] = csv.QUOTE_MINIMAL
    header: bool = True
    encoding: str = "utf-8"
    newline: str = "\n"
    decimal: str = "."
    mark: str = ""
    blanks: bool = False
    compression: str = ""
    say_header: bool = False
    say_delimiter: bool = True

    @property
    def suffix(self) -> str:
        """The end of the file's name."""
        kinds = {"csv": ".csv", "parquet": ".parquet", "duckdb": ".parquet", "feather": ".arrow", "npz": ".npz"}
        return kinds[self.format] + (self.compression if self.format == "csv" else "")

    @property
    def names(self) -> list[str]:
        """The names of the columns as the import must see them."""
        return list(self.frame.columns) if self.header else [str(number) for number in range(self.frame.shape[1])]

    def name(self, column: str) -> str:
        """Return the name that the import gives to a column of the frame."""
        return self.names[list(self.frame.columns).index(column)]

    @property
    def missing(self) -> bool:
        """Whether any value is missing."""
        return bool(self.frame.isna().any().any())

    def reading(self) -> list[str]:
        """The options that say how the file is read."""
        options: list[str] = []
        if self.format != "csv":
            return options
        if self.say_delimiter and self.delimiter != ",":
            options += ["--delimiter", self.delimiter]
        if self.say_header or not self.header:
            options.append("--header" if self.header else "--no-header")
        if self.decimal != ".":
            options += ["--decimal", self.decimal]
        if self.encoding in ("latin-1", "utf-16-le"):
            options += ["--encoding", self.encoding]
        return options

    def importing(self) -> list[str]:
        """The options of the import."""
        options = ["--label", "y" if self.format == "npz" else self.name(LABEL), *self.reading()]
        if self.categorical:
            quoted = ('"' + self.name(name).replace('"', '""') + '"' for name in self.categorical)
            options += ["--categorical", ",".join(quoted)]
        if self.missing:
            options += ["--nulls", "mean"]
        return [*options, "--task", "classification" if self.classes else "regression"]

    def write(self, path: Path, frame: pd.DataFrame | None = None) -> None:
        """Write the table, or another ``frame`` with the same columns, to a file."""
        frame = self.frame if frame is None else frame
        if self.format == "csv":
            path.write_bytes(_compressed(self._csv(frame), self.compression))
        elif self.format == "parquet":
            frame.to_parquet(path, index=False)
        elif self.format == "feather":
            frame.reset_index(drop=True).to_feather(path)
        elif self.format == "duckdb":
            import duckdb

            with duckdb.connect() as connection:
                connection.register("table_of_case", pa.Table.from_pandas(frame, preserve_index=False))
                connection.sql("SELECT * FROM table_of_case").write_parquet(str(path))
        else:
            np.savez(path, x=frame.drop(columns=LABEL).to_numpy(np.float64), y=_plain(frame[LABEL]))

    def _csv(self, frame: pd.DataFrame) -> bytes:
        stream = io.StringIO(newline="")
        writer = csv.writer(
            stream,
            delimiter=self.delimiter,
            quoting=self.quoting,
            lineterminator=self.newline,
        )
        if self.header:
            writer.writerow(frame.columns)
        for row in frame.itertuples(index=False, name=None):
            writer.writerow([self._cell(value) for value in row])
        return stream.getvalue().encode(self.encoding)

    def _cell(self, value: Any) -> Any:
        if value is None or value is pd.NA or (isinstance(value, float) and value != value):
            return f" {self.mark} " if self.blanks and self.mark else self.mark
        if isinstance(value, float):
            return repr(value).replace(".", self.decimal)
        return value

    def expected(self, path: Path) -> pd.DataFrame:
        """Read the file with pandas (DuckDB where that wrote it): the table that the import must see.

        Columns of text and the label are texts, the others float64, missing values NaN.
        """
        if self.format == "npz":
            with np.load(path) as arrays:
                return pd.DataFrame({**{f"x[{k}]": arrays["x"][:, k] for k in range(arrays["x"].shape[1])},
                                     "y": arrays["y"]})  # fmt: skip
        if self.format == "feather":
            frame = pd.read_feather(path)
        elif self.format == "parquet":
            frame = pd.read_parquet(path)
        elif self.format == "duckdb":
            import duckdb

            with duckdb.connect() as connection:
                frame = connection.read_parquet(str(path)).df()
        else:
            text = [self.names.index(self.name(name)) for name in (*self.categorical, *([LABEL] * self.classes))]
            frame = pd.read_csv(
                path,
                sep=self.delimiter,
                header=0 if self.header else None,
                encoding="utf-16" if self.encoding == "utf-16" else self.encoding,
                decimal=self.decimal,
                dtype=dict.fromkeys([self.names[k] for k in text] if self.header else text, str),
                na_values=["?", f" {self.mark} "],  # pandas knows the other marks, but for the blanks
                compression={"": None, ".gz": "gzip", ".bz2": "bz2", ".zip": "zip"}[self.compression],
            )
            frame.columns = pd.Index([str(name) for name in frame.columns])
        return frame


def _compressed(data: bytes, how: str) -> bytes:
    if how == ".gz":
        return gzip.compress(data, mtime=0)
    if how == ".bz2":
        return bz2.compress(data)
    if how == ".zip":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("table.csv", data)
        return stream.getvalue()
    return data


def _plain(column: pd.Series[Any]) -> np.ndarray[Any, Any]:
    values = column.to_numpy()
    plain: np.ndarray[Any, Any] = values.astype(str) if values.dtype == object else np.asarray(values)
    return plain


@dataclass(frozen=True)
class _ColumnKind:
    values: st.SearchStrategy[Any]
    text: bool = False
    dtype: str = "float64"
    formats: tuple[str, ...] = field(default=("csv", "parquet", "duckdb", "feather", "npz"))


def _settled(value: float, least: float) -> float:
    """Return 0 for a value so small that, if the training rows are still smaller, no float32 holds it scaled."""
    return value if abs(value) >= least else 0.0


_NUMBERS = {
    "small floats": _ColumnKind(st.floats(-1e3, 1e3, width=32).map(lambda value: _settled(value, 1e-6))),
    "doubles": _ColumnKind(st.floats(-1e9, 1e9).map(lambda value: _settled(value, 1e-6))),
    "tiny": _ColumnKind(st.floats(-1e-6, 1e-6).map(lambda value: _settled(value, 1e-15))),
    "integers": _ColumnKind(st.integers(-1000, 1000), dtype="int64"),
    "times": _ColumnKind(st.integers(1_600_000_000, 1_600_001_000), dtype="int64"),
    "cents": _ColumnKind(st.integers(0, 10**7).map(lambda cents: cents / 100)),
    "constant": _ColumnKind(st.just(3.25)),
}
_TEXTS = {
    "words": _ColumnKind(st.sampled_from(WORDS), text=True, dtype="object"),
    "two words": _ColumnKind(st.sampled_from(WORDS[:2]), text=True, dtype="object"),
}


@st.composite
def file_cases(draw: st.DrawFn) -> FileCase:
    """Draw a table of 8 to 40 rows and a way to write it."""
    file_format: FileFormat = draw(st.sampled_from(["csv", "csv", "csv", "parquet", "duckdb", "feather", "npz"]))
    is_csv = file_format == "csv"
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"])) if is_csv else "utf-8"
    rows = draw(st.integers(8, 40))
    same_name: Any = str.casefold if file_format == "duckdb" else str  # DuckDB renames one of `age` and `Age`
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique_by=same_name))
    kinds = {name: draw(st.sampled_from(sorted(_NUMBERS))) for name in names}
    texts = [name for name in names[1:] if file_format != "npz" and draw(st.booleans())]
    mark = draw(st.sampled_from(["", "NA", "NaN", "null", "?", "N/A", "<NA>", "None", "#N/A"])) if is_csv else ""
    gaps = file_format != "npz" and draw(st.booleans())
    columns: dict[str, Any] = {}
    for name in names:
        kind = _TEXTS[draw(st.sampled_from(sorted(_TEXTS)))] if name in texts else _NUMBERS[kinds[name]]
        values = draw(st.lists(kind.values, min_size=rows, max_size=rows))
        if gaps and name != names[0] and draw(st.booleans()):
            holes = set(draw(st.lists(st.integers(1, rows - 1), max_size=rows // 3)))
            values = [None if row in holes else value for row, value in enumerate(values)]
        columns[name] = _series(values, kind)
    classes = draw(st.booleans())
    columns[LABEL] = _labels(draw, rows, classes)
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"])) if is_csv else ","
    order = draw(st.permutations(list(columns))) if file_format != "npz" else list(columns)
    header = not is_csv or draw(st.integers(0, 3)) > 0
    return FileCase(
        frame=pd.DataFrame({name: columns[name] for name in order}),
        format=file_format,
        categorical=tuple(texts),
        classes=classes,
        delimiter=delimiter,
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        header=header,
        encoding=encoding,
        newline=draw(st.sampled_from(["\n", "\r\n"])),
        decimal=draw(st.sampled_from([".", "."] + ([","] if delimiter != "," else []))) if is_csv else ".",
        mark=mark,
        blanks=draw(st.booleans()),
        compression=draw(st.sampled_from(["", "", "", ".gz", ".bz2", ".zip"])) if is_csv else "",
        say_header=draw(st.booleans()),
    )


def _series(values: Sequence[Any], kind: _ColumnKind) -> pd.Series[Any]:
    if kind.text:
        return pd.Series(list(values), dtype="object")
    if None in values:
        return pd.Series([float("nan") if value is None else float(value) for value in values], dtype="float64")
    return pd.Series(list(values), dtype=kind.dtype)


def _labels(draw: st.DrawFn, rows: int, classes: bool) -> pd.Series[Any]:
    if not classes:
        return pd.Series(draw(st.lists(st.floats(-1e6, 1e6), min_size=rows, max_size=rows)), dtype="float64")
    first, second = draw(st.lists(st.sampled_from(LABELS), min_size=2, max_size=2, unique=True))
    rest = draw(st.lists(st.sampled_from([first, second]), min_size=rows - 2, max_size=rows - 2))
    return pd.Series([first, second, *rest], dtype="object")
