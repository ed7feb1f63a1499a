"""The first pass over the input: collect what must be known of all rows before one can be encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nnlib.core.errors import DataError
from nnlib.core.liveness import heartbeat
from nnlib.data.columns import Column, RowOrigin, to_plain_array, to_texts
from nnlib.data.encoding import FeatureColumn, FeatureType
from nnlib.data.importing.column_choice import ColumnChoice
from nnlib.data.importing.float_precision import PrecisionCheck
from nnlib.data.importing.formats.table import Table, count_rows, rechunk, rows_per_chunk
from nnlib.data.importing.label_counts import LabelCounts
from nnlib.data.importing.spill_buffer import SpillBuffer
from nnlib.data.spelling import sort_names, unify_names

MOST_CATEGORIES = 10_000

_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"


@dataclass
class Survey:
    """What is known of some rows of the input; `merge` adds what is known of later ones.

    ``origins``: where the rows of each batch in the spill buffer came from. ``categories``: rows by category, for each
    categorical column. ``sums``, ``wide_sums`` and ``present``: sum of the values in each numeric feature as stored and
    as float64, and their number, shape (features,), only counted where missing values are filled. ``needs_float64``:
    the numeric features that need it, shape (features,), only looked for where the type is not chosen yet.
    ``beyond_float64``: those with integers that float64 does not hold either, shape (features,), looked for as well.
    ``is_rounded``: whether the buffer has a float32 that is not the value of the input. ``types``: Arrow types of the
    label and the extra columns, empty without rows. ``whole``: for each extra column, whether its texts are all whole
    numbers.
    """

    rows: int
    origins: list[RowOrigin]
    label: LabelCounts
    categories: dict[str, Counter[str]]
    sums: npt.NDArray[np.float64]
    wide_sums: npt.NDArray[np.float64]
    present: npt.NDArray[np.int64]
    needs_float64: npt.NDArray[np.bool_]
    beyond_float64: npt.NDArray[np.bool_]
    types: dict[str, str]
    whole: dict[str, bool]
    is_rounded: bool = False

    @classmethod
    def empty(cls, choice: ColumnChoice, file: str) -> Survey:
        """Return the survey of no rows; ``file`` stands in error messages about labels."""
        width = choice.dense.features
        return cls(
            0,
            [],
            LabelCounts(choice.label, file),
            {name: Counter() for name in choice.categorical},
            np.zeros(width),
            np.zeros(width),
            np.zeros(width, np.int64),
            np.zeros(width, np.bool_),
            np.zeros(width, np.bool_),
            {},
            dict.fromkeys(choice.extra, True),
        )

    @property
    def extra_types(self) -> dict[str, str]:
        """Name of each extra column -> the type its shards store: ``int64`` or ``string``."""
        stored = {name: self.types.get(name) == "int64" or whole for name, whole in self.whole.items()}
        return {name: "int64" if whole else "string" for name, whole in stored.items()}

    def merge(self, other: Survey, file: str) -> None:
        """Add the survey of the next file.

        Files must be added in their order, because sums are rounded. Raises `DataError` for other column types than
        before and for too many categories.
        """
        if other.types:
            self.types = merge_types(self.types, other.types, file)
        self.rows += other.rows
        self.origins += other.origins
        self.label.merge(other.label)
        for name, counts in other.categories.items():
            self.categories[name].update(counts)
            check_category_count(self.categories[name], name, file)
        self.sums = self.sums + other.sums
        self.wide_sums = self.wide_sums + other.wide_sums
        self.present = self.present + other.present
        self.needs_float64 = self.needs_float64 | other.needs_float64
        self.beyond_float64 = self.beyond_float64 | other.beyond_float64
        self.is_rounded = self.is_rounded or other.is_rounded
        self.whole = {name: whole and other.whole[name] for name, whole in self.whole.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the survey, without what is known of a buffer, as JSON values; `from_json` is the inverse."""
        return {
            "rows": self.rows,
            "labels": dict(self.label.counts),
            "too_many": self.label.too_many,
            "categories": {name: dict(counts) for name, counts in self.categories.items()},
            "sums": self.sums.tolist(),
            "wide_sums": self.wide_sums.tolist(),
            "present": self.present.tolist(),
            "float64": np.flatnonzero(self.needs_float64).tolist(),
            "beyond": np.flatnonzero(self.beyond_float64).tolist(),
            "types": self.types,
            "whole": self.whole,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], choice: ColumnChoice, file: str) -> Survey:
        """Return the survey that `to_json` wrote, of the rows of ``file``."""
        survey = cls.empty(choice, file)
        survey.rows, survey.types, survey.whole = data["rows"], dict(data["types"]), dict(data["whole"])
        survey.label.counts.update(data["labels"])
        survey.label.too_many = data["too_many"]
        survey.categories = {name: Counter(counts) for name, counts in data["categories"].items()}
        survey.sums = np.asarray(data["sums"], np.float64)
        survey.wide_sums = np.asarray(data["wide_sums"], np.float64)
        survey.present = np.asarray(data["present"], np.int64)
        survey.needs_float64[data["float64"]] = True
        survey.beyond_float64[data["beyond"]] = True
        return survey

    def stored_type(self, choice: ColumnChoice) -> FeatureType:
        """Return the type in which the dataset stores its features: one needs float64, then all have it."""
        if choice.dtype != "auto":
            return choice.dtype
        return "float64" if self.needs_float64.any() else "float32"

    def wide_features(self, choice: ColumnChoice) -> list[str]:
        """Return the names of the features that need float64."""
        names = choice.dense.feature_names
        return [names[index] for index in np.flatnonzero(self.needs_float64)]

    def rounded_features(self, choice: ColumnChoice) -> list[str]:
        """Return the names of the features with integers that float64 does not hold."""
        names = choice.dense.feature_names
        return [names[index] for index in np.flatnonzero(self.beyond_float64)]

    def feature_columns(self, choice: ColumnChoice) -> tuple[FeatureColumn, ...]:
        """Return the feature columns with their categories and, if missing values are filled, their fill values.

        Raises `DataError` for a column without any value.
        """
        columns = []
        start = 0
        sums = self.wide_sums if self.stored_type(choice) == "float64" else self.sums
        for column in choice.features:
            if column.kind == "categorical":
                counts = unify_names(self.categories[column.name])
                categories = sort_names(counts)
                if not categories:
                    raise DataError("all values are missing", column=column.name)
                total = sum(counts.values())
                means = tuple(counts[name] / total for name in categories)
                fill = means if choice.fill_missing else ()
                columns.append(replace(column, width=len(categories), categories=categories, fill=fill))
                continue
            part = slice(start, start + column.width)
            start += column.width
            if choice.fill_missing:
                empty = self.present[part] == 0
                if empty.any():
                    raise DataError("all values are missing", column=column.feature_names[int(empty.argmax())])
                column = replace(column, fill=tuple((sums[part] / self.present[part]).tolist()))
            columns.append(column)
        return tuple(columns)


def merge_types(before: Mapping[str, str], here: Mapping[str, str], file: str | None) -> dict[str, str]:
    """Return the column types ``here``. Raises `DataError` where they differ from those ``before``, if there are
    any."""
    for name, kind in here.items():
        if before.get(name, kind) != kind:
            raise DataError(f"is {kind} here and {before[name]} before", file=file, column=name)
    return dict(here)


def check_category_count(counts: Counter[str], name: str, file: str | None) -> None:
    """Raise `DataError` for a column of too many categories."""
    if len(counts) > MOST_CATEGORIES:
        raise DataError(f"has more than {MOST_CATEGORIES} categories", file=file, column=name)


def survey_tables(
    tables: Sequence[Table],
    choice: ColumnChoice,
    buffer: SpillBuffer,
    progress: Callable[[int], None] = lambda rows: None,
) -> Survey:
    """Read all tables once, put their rows into partition 0 of ``buffer``, and return what is known of them.

    ``progress`` is called with the number of rows read so far. Raises `DataError` for bad data and if there are no
    rows.
    """
    survey = Survey.empty(choice, tables[0].file)
    for table in tables:

        def progress_of_table(rows: int, before: int = survey.rows) -> None:
            progress(before + rows)

        survey.merge(survey_table(table, choice, buffer, progress_of_table), table.file)
    require_rows(survey)
    return survey


def require_rows(survey: Survey) -> None:
    """Raise `DataError` if there are no rows."""
    if not survey.rows:
        raise DataError("there are no rows", file=survey.label.file)


def survey_table(
    table: Table,
    choice: ColumnChoice,
    buffer: SpillBuffer | None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Survey:
    """Read one table and return what is known of its rows.

    Its rows go to partition 0 of ``buffer``, if there is one, in batches whose sizes depend on the rows alone.
    ``progress`` is called with the number of rows read so far. Raises `DataError` for bad data.
    """
    survey = Survey.empty(choice, table.file)
    dense = choice.dense
    precision = PrecisionCheck(dense.features) if choice.dtype == "auto" else None
    block = rows_per_chunk(dense.features * (1 if choice.dtype == "uint8" else 4))  # whatever the survey finds
    for columns in rechunk(iter(table.chunks(choice.roles)), block):
        heartbeat()
        origin = RowOrigin(table.file, survey.rows)
        arrays: dict[str, pa.Array] = {}
        if dense.features:
            blocks = dense.blocks(columns, origin)
            exact = precision is None or precision.add(blocks)
            if precision is not None and precision.needed.any():
                dense = replace(dense, dtype="float64")
            x = dense.stored(blocks, origin)
            if dense.dtype == "float32":
                survey.is_rounded = survey.is_rounded or not exact
            if choice.fill_missing:
                survey.sums += np.nansum(x, axis=0, dtype=np.float64)
                wide = [np.nansum(block, axis=0, dtype=np.float64) for block in blocks]
                survey.wide_sums += np.concatenate(wide)
                survey.present += np.count_nonzero(~np.isnan(x), axis=0)
            flat = pa.array(x.reshape(-1), from_pandas=False)
            arrays["x"] = pa.FixedSizeListArray.from_arrays(flat, dense.features)
        for name in choice.categorical:
            arrays[f"text {name}"] = text = to_texts(columns[name], name, origin)
            for entry in pc.value_counts(text.drop_null()).to_pylist():
                survey.categories[name][entry["values"]] += entry["counts"]
            check_category_count(survey.categories[name], name, origin.file)
        arrays["label"] = _label_array(columns[choice.label], choice.label, origin)
        survey.label.add(arrays["label"], origin)
        types = {choice.label: _label_kind(arrays["label"])}
        for name in choice.extra:
            arrays[f"extra {name}"] = extra = _extra_array(columns[name], name, origin)
            types[name] = str(extra.type)
            if survey.whole[name] and pa.types.is_string(extra.type):
                survey.whole[name] = bool(pc.all(pc.match_substring_regex(extra, _WHOLE)).as_py() is not False)
        survey.types = merge_types(survey.types, types, origin.file)
        if buffer is not None:
            buffer.put(0, pa.RecordBatch.from_pydict(arrays))
            survey.origins.append(origin)
        survey.rows += count_rows(columns)
        progress(survey.rows)
    if precision is not None:
        survey.needs_float64, survey.beyond_float64 = precision.needed, precision.beyond
    return survey


def _label_array(column: Column, name: str, origin: RowOrigin) -> pa.Array:
    """Return labels as int64 (uint64 where the column has that type), float32, float64 or strings."""
    labels = to_plain_array(column, name, origin)
    if pa.types.is_integer(labels.type):
        return labels if pa.types.is_uint64(labels.type) else labels.cast(pa.int64())
    return labels if pa.types.is_floating(labels.type) else labels.cast(pa.string())


def _label_kind(labels: pa.Array) -> str:
    """Return the name of the Arrow type that stands for the labels' type: int64, double or string."""
    if pa.types.is_integer(labels.type):
        return "int64"
    return "double" if pa.types.is_floating(labels.type) else "string"


def _extra_array(column: Column, name: str, origin: RowOrigin) -> pa.Array:
    """Return an extra column as int64 or strings."""
    extra = to_plain_array(column, name, origin)
    integers = pa.types.is_integer(extra.type) and not pa.types.is_uint64(extra.type)
    return extra.cast(pa.int64() if integers else pa.string())
