"""The first pass over raw tables: rows go to a spool as they are read, facts about their columns are gathered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nnlib.core.errors import DataError, UsageError
from nnlib.core.liveness import beat
from nnlib.data.columns import Column, Place, class_name, class_order, is_number, plain, texts
from nnlib.data.dataset import Task
from nnlib.data.encoding import Encoding, FeatureColumn, columns_from_json
from nnlib.data.importing.formats.table import Role, Table, chunk_rows, length, rechunk
from nnlib.data.importing.spill_buffer import Spool

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

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "features": Encoding(self.features).to_json()["columns"],
            "keep": list(self.keep),
            "dtype": self.dtype,
            "fill_missing": self.fill_missing,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Choice:
        features = columns_from_json(data["features"])
        return cls(data["label"], features, tuple(data["keep"]), data["dtype"], bool(data["fill_missing"]))


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

    def merge(self, other: LabelFacts) -> None:
        """Add what later rows gave."""
        self.counts.update(other.counts)
        self.too_many = self.too_many or other.too_many or len(self.counts) > MOST_CLASSES

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
    """What the first pass found. ``places`` has one entry per spooled batch; ``types`` are those of the label and the
    kept columns, none where there are no rows; ``whole`` says of each kept column whether its texts are whole numbers.
    """

    rows: int
    places: list[Place]
    label: LabelFacts
    categories: dict[str, Counter[str]]
    sums: npt.NDArray[np.float64]
    present: npt.NDArray[np.int64]
    types: dict[str, str]
    whole: dict[str, bool]

    @classmethod
    def nothing(cls, choice: Choice, file: str) -> Survey:
        """Of no rows yet of a file."""
        width = choice.dense.features
        return cls(
            0,
            [],
            LabelFacts(choice.label, file),
            {name: Counter() for name in choice.categorical},
            np.zeros(width),
            np.zeros(width, np.int64),
            {},
            dict.fromkeys(choice.keep, True),
        )

    @property
    def kept(self) -> dict[str, str]:
        """The kept columns as shards store them."""
        stored = {name: self.types.get(name) == "int64" or whole for name, whole in self.whole.items()}
        return {name: "int64" if whole else "string" for name, whole in stored.items()}

    def merge(self, other: Survey, file: str) -> None:
        """Add what the rows of the next file gave: in the order of the files, for sums are rounded."""
        if other.types:
            self.types = same_types(self.types, other.types, file)
        self.rows += other.rows
        self.places += other.places
        self.label.merge(other.label)
        for name, counts in other.categories.items():
            self.categories[name].update(counts)
            few_categories(self.categories[name], name, file)
        self.sums = self.sums + other.sums
        self.present = self.present + other.present
        self.whole = {name: whole and other.whole[name] for name, whole in self.whole.items()}

    def to_json(self) -> dict[str, Any]:
        """All but the places."""
        return {
            "rows": self.rows,
            "labels": dict(self.label.counts),
            "too_many": self.label.too_many,
            "categories": {name: dict(counts) for name, counts in self.categories.items()},
            "sums": self.sums.tolist(),
            "present": self.present.tolist(),
            "types": self.types,
            "whole": self.whole,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], choice: Choice, file: str) -> Survey:
        found = cls.nothing(choice, file)
        found.rows, found.types, found.whole = data["rows"], dict(data["types"]), dict(data["whole"])
        found.label.counts.update(data["labels"])
        found.label.too_many = data["too_many"]
        found.categories = {name: Counter(counts) for name, counts in data["categories"].items()}
        found.sums = np.asarray(data["sums"], np.float64)
        found.present = np.asarray(data["present"], np.int64)
        return found

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


def same_types(before: Mapping[str, str], here: Mapping[str, str], file: str | None) -> dict[str, str]:
    """The types of columns, which must be those of the rows before (if there are any)."""
    for name, kind in here.items():
        if before.get(name, kind) != kind:
            raise DataError(f"is {kind} here and {before[name]} before", file=file, column=name)
    return dict(here)


def few_categories(counts: Counter[str], name: str, file: str | None) -> None:
    """Refuse a column of too many categories."""
    if len(counts) > MOST_CATEGORIES:
        raise DataError(f"has more than {MOST_CATEGORIES} categories", file=file, column=name)


def survey(
    tables: Sequence[Table], choice: Choice, spool: Spool, tell: Callable[[int], None] = lambda rows: None
) -> Survey:
    """Read everything once into pile 0 of the spool; `DataError` if there are no rows."""
    found = Survey.nothing(choice, tables[0].file)
    for table in tables:

        def told(rows: int, before: int = found.rows) -> None:
            tell(before + rows)

        found.merge(survey_table(table, choice, spool, told), table.file)
    require_rows(found)
    return found


def require_rows(found: Survey) -> None:
    """Refuse an import of nothing."""
    if not found.rows:
        raise DataError("there are no rows", file=found.label.file)


def survey_table(
    table: Table, choice: Choice, spool: Spool | None, tell: Callable[[int], None] = lambda rows: None
) -> Survey:
    """Read a table once, in blocks that depend on its rows alone, which go to pile 0 of the spool (if there is one)."""
    found = Survey.nothing(choice, table.file)
    dense = choice.dense
    block = chunk_rows(dense.features * np.dtype(choice.dtype).itemsize)
    for columns in rechunk(iter(table.chunks(choice.roles)), block):
        beat()
        place = Place(table.file, found.rows)
        arrays: dict[str, pa.Array] = {}
        if dense.features:
            x = dense.stored(columns, place)
            flat = pa.array(x.reshape(-1), from_pandas=False)
            arrays["x"] = pa.FixedSizeListArray.from_arrays(flat, dense.features)
            if choice.fill_missing:
                found.sums += np.nansum(x, axis=0, dtype=np.float64)
                found.present += np.count_nonzero(~np.isnan(x), axis=0)
        for name in choice.categorical:
            arrays[f"text {name}"] = text = texts(columns[name], name, place)
            for entry in pc.value_counts(text.drop_null()).to_pylist():
                found.categories[name][entry["values"]] += entry["counts"]
            few_categories(found.categories[name], name, place.file)
        arrays["label"] = _plain_label(columns[choice.label], choice.label, place)
        found.label.add(arrays["label"], place)
        types = {choice.label: str(arrays["label"].type)}
        for name in choice.keep:
            arrays[f"kept {name}"] = kept = _kept(columns[name], name, place)
            types[name] = str(kept.type)
            if found.whole[name] and pa.types.is_string(kept.type):
                found.whole[name] = bool(pc.all(pc.match_substring_regex(kept, _WHOLE)).as_py() is not False)
        found.types = same_types(found.types, types, place.file)
        if spool is not None:
            spool.put(0, pa.RecordBatch.from_pydict(arrays))
            found.places.append(place)
        found.rows += length(columns)
        tell(found.rows)
    return found


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
