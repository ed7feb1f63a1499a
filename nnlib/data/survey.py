"""The first pass over raw tables: rows go to a spool as they are read, facts about their columns are gathered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nnlib.data.columns import Column, Columns, Place, class_name, class_order, is_number, plain, texts
from nnlib.data.dataset import Task
from nnlib.data.encoding import Encoding, FeatureColumn
from nnlib.data.importers.table import Role, Table, chunk_rows, length, rechunk
from nnlib.data.spool import Spool
from nnlib.errors import DataError, UsageError

MOST_CLASSES = 65_536
MOST_CATEGORIES = 10_000
MOST_AUTO_CLASSES = 1_000
"""Whole-number labels with more distinct values than this are taken as a numeric target."""

_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"


@dataclass(frozen=True)
class Choice:
    """Which columns are used and what for. Feature columns still lack their categories and fills."""

    label: str
    features: tuple[FeatureColumn, ...]
    keep: tuple[str, ...]
    dtype: Literal["float32", "uint8"]
    fill_missing: bool

    @property
    def roles(self) -> dict[str, Role]:
        roles: dict[str, Role] = {
            column.name: "text" if column.kind == "categorical" else "number" for column in self.features
        }
        return roles | dict.fromkeys((self.label, *self.keep), "value")

    @property
    def dense(self) -> Encoding:
        """The encoding of the columns that are numbers; where missing values get filled they stay NaN for now."""
        missing = float("nan")
        columns = (
            replace(column, fill=(missing,) * column.width if self.fill_missing else ())
            for column in self.features
            if column.kind != "categorical"
        )
        return Encoding(tuple(columns), dtype=self.dtype)

    @property
    def categorical(self) -> list[str]:
        return [column.name for column in self.features if column.kind == "categorical"]


class LabelFacts:
    """The distinct labels and their counts, as long as they may be classes."""

    def __init__(self, name: str, file: str) -> None:
        self.name = name
        self.file = file
        self.counts: Counter[str] = Counter()
        self.too_many = False

    def add(self, labels: pa.Array, place: Place) -> None:
        missing = labels.is_null(nan_is_null=True)
        if pc.any(missing).as_py():
            row = int(np.asarray(missing).argmax())
            raise DataError("the label is missing", file=place.file, row=place.row + row + 1, column=self.name)
        if not self.too_many:
            for entry in pc.value_counts(labels).to_pylist():
                self.counts[class_name(entry["values"])] += entry["counts"]
            self.too_many = len(self.counts) > MOST_CLASSES

    def task(self, wanted: Literal["auto", "classification", "regression"]) -> Task:
        """What the labels are for, if that can be."""
        text = next((name for name in self.counts if not is_number(name)), None)
        whole = all(class_name(name).lstrip("+-").isdigit() for name in self.counts)
        task = wanted
        if task == "auto":
            few = whole and len(self.counts) <= MOST_AUTO_CLASSES
            task = "classification" if text is not None or few else "regression"
        if task == "classification" and self.too_many:
            raise DataError(
                f"has more than {MOST_CLASSES} distinct labels",
                hint="is it the right --label column? For a numeric target use --task regression",
                file=self.file,
                column=self.name,
            )
        if task == "regression" and text is not None:
            raise DataError(f"a numeric target is wanted, found {text!r}", file=self.file, column=self.name)
        return task

    def classes(self, label_map: Mapping[str, str], declared: Sequence[str] = ()) -> tuple[str, ...]:
        """Class names in index order, after renaming: the ``declared`` ones, if any, which must hold all found."""
        unknown = [name for name in label_map if name not in self.counts]
        if unknown:
            known = ", ".join(class_order(list(self.counts))[:20])
            raise UsageError(f"--map-label: there is no label {unknown[0]!r}; labels: {known}")
        classes = class_order([label_map.get(name, name) for name in self.counts])
        if declared:
            unknown = [name for name in classes if name not in declared]
            if unknown:
                raise DataError(
                    f"label {unknown[0]!r} is none of the {len(declared)} classes declared",
                    file=self.file,
                    column=self.name,
                )
            classes = tuple(declared)
        if len(classes) < 2:
            raise DataError(
                f"all rows have the same label {classes[0]!r}: nothing can be learned", file=self.file, column=self.name
            )
        return classes


@dataclass
class Survey:
    """What the first pass found. ``places`` has one entry per spooled batch."""

    rows: int
    places: list[Place]
    label: LabelFacts
    categories: dict[str, Counter[str]]
    sums: npt.NDArray[np.float64]
    present: npt.NDArray[np.int64]
    kept: dict[str, str]

    def features(self, choice: Choice) -> tuple[FeatureColumn, ...]:
        """The feature columns with their categories, and column means as fills if missing values are filled."""
        columns = []
        start = 0
        for column in choice.features:
            if column.kind == "categorical":
                counts = self.categories[column.name]
                categories = class_order(list(counts))
                if not categories:
                    raise DataError("all values are missing", column=column.name)
                means = tuple(counts[name] / counts.total() for name in categories)
                fill = means if choice.fill_missing else ()
                columns.append(replace(column, width=len(categories), categories=categories, fill=fill))
                continue
            part = slice(start, start + column.width)
            start += column.width
            if choice.fill_missing:
                empty = self.present[part] == 0
                if empty.any():
                    raise DataError("all values are missing", column=column.feature_names[int(empty.argmax())])
                column = replace(column, fill=tuple((self.sums[part] / self.present[part]).tolist()))
            columns.append(column)
        return tuple(columns)


def survey(tables: Sequence[Table], choice: Choice, spool: Spool, tell: Callable[[int], None]) -> Survey:
    """Read everything once into pile 0 of the spool, in blocks that depend on the rows alone."""
    dense = choice.dense
    width = dense.features
    found = Survey(
        0,
        [],
        LabelFacts(choice.label, tables[0].file),
        {name: Counter() for name in choice.categorical},
        np.zeros(width),
        np.zeros(width, np.int64),
        {},
    )
    strings_are_whole = dict.fromkeys(choice.keep, True)
    schema: pa.Schema | None = None
    block = chunk_rows(width * np.dtype(choice.dtype).itemsize)
    for place, columns in _blocks(tables, choice, block):
        arrays: dict[str, pa.Array] = {}
        if width:
            x = dense.stored(columns, place)
            flat = pa.array(x.reshape(-1), from_pandas=False)
            arrays["x"] = pa.FixedSizeListArray.from_arrays(flat, width)
            if choice.fill_missing:
                found.sums += np.nansum(x, axis=0, dtype=np.float64)
                found.present += np.count_nonzero(~np.isnan(x), axis=0)
        for name in choice.categorical:
            arrays[f"text {name}"] = text = texts(columns[name], name, place)
            for entry in pc.value_counts(text.drop_null()).to_pylist():
                found.categories[name][entry["values"]] += entry["counts"]
            if len(found.categories[name]) > MOST_CATEGORIES:
                raise DataError(f"has more than {MOST_CATEGORIES} categories", file=place.file, column=name)
        arrays["label"] = _plain_label(columns[choice.label], choice.label, place)
        found.label.add(arrays["label"], place)
        for name in choice.keep:
            arrays[f"kept {name}"] = kept = _kept(columns[name], name, place)
            if strings_are_whole[name] and pa.types.is_string(kept.type):
                strings_are_whole[name] = bool(pc.all(pc.match_substring_regex(kept, _WHOLE)).as_py() is not False)
        batch = pa.RecordBatch.from_pydict(arrays)
        if schema is not None and batch.schema != schema:
            odd = next(name for name in schema.names if batch.schema.field(name) != schema.field(name))
            name = odd.partition(" ")[2] or choice.label
            raise DataError(
                f"is {batch.schema.field(odd).type} here and {schema.field(odd).type} before",
                file=place.file,
                column=name,
            )
        schema = batch.schema
        spool.put(0, batch)
        found.places.append(place)
        found.rows += len(batch)
        tell(found.rows)
    if schema is None:
        raise DataError("there are no rows", file=tables[0].file)
    for name in choice.keep:
        whole = schema.field(f"kept {name}").type == pa.int64() or strings_are_whole[name]
        found.kept[name] = "int64" if whole else "string"
    return found


def _blocks(tables: Iterable[Table], choice: Choice, rows: int) -> Iterator[tuple[Place, Columns]]:
    roles = choice.roles
    for table in tables:
        start = 0
        for columns in rechunk(iter(table.chunks(roles)), rows):
            yield Place(table.file, start), columns
            start += length(columns)


def _plain_label(column: Column, name: str, place: Place) -> pa.Array:
    """Labels as int64, float64 or strings."""
    labels = plain(column, name, place)
    if pa.types.is_integer(labels.type):
        return _cast(labels, pa.int64(), name, place)
    return _cast(labels, pa.float64() if pa.types.is_floating(labels.type) else pa.string(), name, place)


def _kept(column: Column, name: str, place: Place) -> pa.Array:
    kept = plain(column, name, place)
    return _cast(kept, pa.int64() if pa.types.is_integer(kept.type) else pa.string(), name, place)


def _cast(column: pa.Array, kind: Any, name: str, place: Place) -> pa.Array:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        raise DataError(f"does not fit {kind} ({error})", file=place.file, column=name) from None
