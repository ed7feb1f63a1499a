"""How columns of the input become the numbers ``x`` and ``y``; a dataset stores it and `predict` uses it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.errors import DataError, MismatchError
from nnlib.data.columns import (
    Column,
    Columns,
    RowOrigin,
    bad_value_error,
    distinct_values,
    is_number,
    to_numbers,
    to_plain_array,
    to_texts,
)
from nnlib.data.importing.read_options import ReadOptions
from nnlib.data.spelling import MISSING, UNKNOWN, NameIndex

FeatureType = Literal["float32", "float64", "uint8", "uint16", "uint32"]
"""How a dataset stores its features: one type for all of them."""

_MOST = {"uint8": 255, "uint16": 65_535, "uint32": 4_294_967_295}
"""The largest number of each type of whole numbers."""

UNKNOWN_CATEGORY = "an import with --unknown-category ignore makes models that take it for none of them"
"""The hint for a category that a model does not know."""


@dataclass(frozen=True)
class FeatureColumn:
    """One column of the input and the ``width`` features it becomes.

    A ``numeric`` column becomes one feature, a ``categorical`` one an indicator per category, a ``vector`` one per
    element. ``fill`` (``width`` numbers, or none) replaces missing values; without it a missing value is an error.
    """

    name: str
    kind: Literal["numeric", "categorical", "vector"] = "numeric"
    width: int = 1
    categories: tuple[str, ...] = ()
    fill: tuple[float, ...] = ()

    @property
    def feature_names(self) -> list[str]:
        """The names of the features of this column."""
        if self.kind == "numeric":
            return [self.name]
        parts = self.categories if self.kind == "categorical" else range(self.width)
        return [f"{self.name}={part}" if self.kind == "categorical" else f"{self.name}[{part}]" for part in parts]

    def encode(self, column: Column, origin: RowOrigin, unknown: Counter[str] | None = None) -> npt.NDArray[Any]:
        """Return the features of n rows, shape (n, width), all finite.

        Raises `DataError`, naming file, row and column, for values that are missing, infinite or of no known category.
        With ``unknown``, rows of no known category have the indicators 0, and are counted there by the column's name.
        """
        if self.kind == "categorical":
            return self._indicators(column, origin, unknown)
        values = to_numbers(column, self.name, origin)
        if values.ndim == 1:
            values = values[:, None]
        if values.shape[1] != self.width:
            raise DataError(
                f"expected {self.width} values a row, got {values.shape[1]}", file=origin.file, column=self.name
            )
        if values.dtype.kind != "f":
            return values
        finite = np.isfinite(values)
        if finite.all():
            return values
        missing = np.isnan(values)
        bad = ~finite & ~missing if self.fill else ~finite
        if bad.any():
            row, part = (int(index[0]) for index in np.nonzero(bad))
            raise bad_value_error(values[row, part], self.feature_names[part], origin, row)
        return np.where(missing, np.asarray(self.fill, np.float64), values)

    @cached_property
    def _index(self) -> NameIndex:
        return NameIndex({name: index for index, name in enumerate(self.categories)})

    def _indicators(self, column: Column, origin: RowOrigin, unknown: Counter[str] | None) -> npt.NDArray[np.float64]:
        codes, value_of = _codes(self._index, column, self.name, origin)
        missing, strange = codes == MISSING, codes == UNKNOWN
        if strange.any():
            if unknown is None:
                row = int(strange.argmax())
                raise DataError(
                    f"{value_of(row)!r} is none of the {len(self.categories)} known categories",
                    hint=UNKNOWN_CATEGORY,
                    file=origin.file,
                    row=origin.row + row + 1,
                    column=self.name,
                )
            unknown[self.name] += int(np.count_nonzero(strange))
        if missing.any() and not self.fill:
            raise bad_value_error(None, self.name, origin, int(missing.argmax()))
        values = np.zeros((len(codes), self.width))
        present = np.flatnonzero(codes >= 0)
        values[present, codes[present]] = 1.0
        if missing.any():
            values[missing] = self.fill
        return values


@dataclass(frozen=True)
class Encoding:
    """Turns columns of the input into ``x`` and ``y``.

    ``x`` is stored as ``dtype``; the value of a feature is ``stored * scale + offset``. ``label`` is the label column,
    ``classes`` the class names in index order (none for regression). ``label_map`` renames labels (old -> new) before
    they are looked up among the classes. ``reading`` says how the files were read; None where there were no files,
    and in datasets of earlier versions. ``unknown_category`` says what a category that no row of the dataset had
    becomes in rows to predict: an ``error``, or with ``ignore`` none of the known ones.
    """

    columns: tuple[FeatureColumn, ...]
    label: str | None = None
    classes: tuple[str, ...] = ()
    label_map: Mapping[str, str] = field(default_factory=dict)
    dtype: FeatureType = "float32"
    scale: float = 1.0
    offset: float = 0.0
    reading: ReadOptions | None = None
    unknown_category: Literal["error", "ignore"] = "error"

    @cached_property
    def features(self) -> int:
        """The number of features."""
        return sum(column.width for column in self.columns)

    @property
    def is_vector(self) -> bool:
        """Whether all features come from one column of vectors, such as images: they have no names of their own."""
        return len(self.columns) == 1 and self.columns[0].kind == "vector"

    @cached_property
    def feature_names(self) -> list[str]:
        """The names of the features, in order."""
        return [name for column in self.columns for name in column.feature_names]

    def encode(
        self, columns: Columns, origin: RowOrigin | None = None, unknown: Counter[str] | None = None
    ) -> npt.NDArray[Any]:
        """Return ``x`` of n rows as a shard stores it, shape (n, features), of type ``dtype``.

        ``unknown`` counts rows of no known category by column, if ``unknown_category`` is ``ignore``. Raises
        `DataError`, naming file, row and column, for values that cannot be stored.
        """
        return self.stored(self.blocks(columns, origin, unknown), origin)

    def blocks(
        self, columns: Columns, origin: RowOrigin | None = None, unknown: Counter[str] | None = None
    ) -> list[npt.NDArray[Any]]:
        """Return the features of each column before they are stored, shape (n, width) each, of any numeric type.

        ``unknown`` is as in `encode`. Raises `DataError`, naming file, row and column, for values that are no features.
        """
        origin = origin or RowOrigin()
        counter: Counter[str] = Counter() if unknown is None else unknown
        ignored = counter if self.unknown_category == "ignore" else None
        blocks = []
        for column in self.columns:
            if column.name not in columns:
                raise DataError(f"column {column.name!r} is missing", file=origin.file)
            blocks.append(column.encode(columns[column.name], origin, ignored))
        return blocks

    def stored(self, blocks: Sequence[npt.NDArray[Any]], origin: RowOrigin | None = None) -> npt.NDArray[Any]:
        """Return the result of `blocks` as a shard stores it, shape (n, features), of type ``dtype``.

        Raises `DataError`, naming file, row and column, for values that this type cannot hold.
        """
        origin = origin or RowOrigin()
        rows = len(blocks[0]) if blocks else 0
        x = np.empty((rows, self.features), self.dtype)
        start = 0
        for column, block in zip(self.columns, blocks, strict=True):
            part = x[:, start : start + column.width]
            with np.errstate(over="ignore", invalid="ignore"):
                np.copyto(part, block, casting="unsafe")
            if self.dtype in _MOST:
                most = _MOST[self.dtype]
                self._check(part == block, block, column, origin, f"is not a whole number from 0 to {most}")
            elif self.dtype == "float32" and block.dtype == np.float64:
                self._check(np.isinf(block) | ~np.isinf(part), block, column, origin, "does not fit float32")
            start += column.width
        return x

    @staticmethod
    def _check(
        good: npt.NDArray[np.bool_], block: npt.NDArray[Any], column: FeatureColumn, origin: RowOrigin, what: str
    ) -> None:
        if not good.all():
            row, part = (int(index[0]) for index in np.nonzero(~good))
            name = column.feature_names[part]
            raise DataError(f"{block[row, part]} {what}", file=origin.file, row=origin.row + row + 1, column=name)

    def decode(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values of stored features, same shape: float64 if they are stored so, else float32."""
        kind = np.float64 if self.dtype == "float64" else np.float32
        if self.scale == 1.0 and self.offset == 0.0:
            return stored.astype(kind, copy=False)
        values: npt.NDArray[Any] = stored.astype(kind)
        values *= kind(self.scale)
        values += kind(self.offset)
        return values

    def encode_labels(self, column: Column, origin: RowOrigin | None = None) -> npt.NDArray[Any]:
        """Return ``y`` of n rows, shape (n,): int32 class indices, or float64 targets if there are no classes.

        Raises `DataError`, naming file, row and column, for labels that are missing or of no known class.
        """
        origin = origin or RowOrigin()
        name = self.label or "label"
        if not self.classes:
            targets = to_numbers(column, name, origin).astype(np.float64)
            if not np.isfinite(targets).all():
                row = int((~np.isfinite(targets)).argmax())
                raise bad_value_error(targets[row], name, origin, row)
            return targets
        y, value_of = _codes(self._class_index, column, name, origin)
        if (y < 0).any():
            row = int((y < 0).argmax())
            raise DataError(
                "the label is missing"
                if y[row] == MISSING
                else f"label {value_of(row)!r} is none of the {len(self.classes)} classes",
                file=origin.file,
                row=origin.row + row + 1,
                column=name,
            )
        return y

    def find_labels(self, column: Column, origin: RowOrigin | None = None) -> npt.NDArray[Any]:
        """Return ``y`` of n rows as `encode_labels` does, for rows to predict, whose labels may be anything.

        A label of no known class is `UNKNOWN`, a missing one `MISSING`; a target that is missing or no finite number is
        NaN. A column of values that cannot be labels is unknown in all rows.
        """
        origin = origin or RowOrigin()
        name = self.label or "label"
        try:
            if self.classes:
                return _codes(self._class_index, column, name, origin)[0]
            try:
                targets = to_numbers(column, name, origin).astype(np.float64).reshape(len(column))
            except DataError:  # texts, of which some may be numbers
                targets = _readable_numbers(to_texts(column, name, origin))
        except DataError:
            return np.full(len(column), UNKNOWN if self.classes else np.nan, np.int32 if self.classes else np.float64)
        return np.where(np.isfinite(targets), targets, np.nan)

    @cached_property
    def _class_index(self) -> NameIndex:
        indices = {name: index for index, name in enumerate(self.classes)}
        renamed = {old: indices[new] for old, new in self.label_map.items() if new in indices}
        new_names = set(self.label_map.values())
        return NameIndex(
            indices | renamed, {name: index for name, index in indices.items() if name not in new_names} | renamed
        )

    def class_of(self, value: Any) -> str | None:
        """Return the name of the class of a label of the input; None for a label of no class."""
        index = self._class_index.find(value)
        return None if index == UNKNOWN else self.classes[index]

    def to_json(self) -> dict[str, Any]:
        """Return the encoding as JSON values; `from_json` is the inverse."""
        data: dict[str, Any] = {
            "columns": columns_to_json(self.columns),
            "label": self.label,
            "classes": list(self.classes),
            "label_map": dict(self.label_map),
            "dtype": self.dtype,
            "scale": self.scale,
            "offset": self.offset,
        }
        if self.reading is not None:
            data["reading"] = self.reading.to_json()
        if self.unknown_category != "error":  # else the manifest is that of earlier versions
            data["unknown_category"] = self.unknown_category
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Encoding:
        """Return the encoding that `to_json` wrote. Raises `MismatchError` for an unknown dtype."""
        columns = columns_from_json(data["columns"])
        if data["dtype"] not in get_args(FeatureType):
            raise MismatchError(f"unknown dtype {data['dtype']!r}")
        return cls(
            columns,
            data["label"],
            tuple(data["classes"]),
            dict(data["label_map"]),
            data["dtype"],
            float(data["scale"]),
            float(data["offset"]),
            ReadOptions.from_json(data["reading"]) if "reading" in data else None,
            "ignore" if data.get("unknown_category") == "ignore" else "error",
        )


def _codes(
    index: NameIndex, column: Column, name: str, origin: RowOrigin
) -> tuple[npt.NDArray[np.int32], Callable[[int], Any]]:
    """Return the index of each value, shape (n,), `UNKNOWN` or `MISSING` where there is none; and a function from the
    position of a row to its value."""
    encoded = to_plain_array(column, name, origin).dictionary_encode()
    distinct = distinct_values(encoded.dictionary)
    codes = [MISSING if value is None else index.find(value) for value in distinct]
    if pa.types.is_float32(encoded.dictionary.type):  # earlier versions named these as the float64 of the same value
        wide = encoded.dictionary.to_pylist()
        codes = [index.find(value) if code == UNKNOWN else code for code, value in zip(codes, wide, strict=True)]
    places = np.asarray(encoded.indices.fill_null(len(distinct)))
    return np.asarray([*codes, MISSING], np.int32)[places], lambda row: distinct[places[row]]


def _readable_numbers(texts: pa.Array) -> npt.NDArray[np.float64]:
    """Return texts as numbers, NaN for each that is none."""
    numbers = [float(text) if text is not None and is_number(text) else np.nan for text in texts.to_pylist()]
    return np.asarray(numbers, np.float64)


def columns_to_json(columns: Sequence[FeatureColumn]) -> list[dict[str, str | int | list[str] | list[float]]]:
    """Return feature columns as JSON values; `columns_from_json` is the inverse."""
    return [
        {
            "name": column.name,
            "kind": column.kind,
            "width": column.width,
            "categories": list(column.categories),
            "fill": list(column.fill),
        }
        for column in columns
    ]


def columns_from_json(data: Sequence[Mapping[str, Any]]) -> tuple[FeatureColumn, ...]:
    """Return feature columns from their JSON values, as `Encoding.to_json` writes them."""
    return tuple(
        FeatureColumn(
            str(column["name"]),
            column["kind"],
            int(column["width"]),
            tuple(column["categories"]),
            tuple(float(number) for number in column["fill"]),
        )
        for column in data
    )


def vector_encoding(features: int, dtype: FeatureType, **rest: Any) -> Encoding:
    """Return the encoding of one vector column ``x`` of ``features`` numbers, with ``rest`` as other fields."""
    return Encoding((FeatureColumn("x", "vector", features),), dtype=dtype, **rest)
