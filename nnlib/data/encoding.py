"""How raw columns become the numbers of ``x`` and ``y``: kept in the dataset and used again by `predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.errors import DataError, MismatchError
from nnlib.data.columns import Column, Columns, Place, bad_value, class_name, numbers, plain, texts


@dataclass(frozen=True)
class FeatureColumn:
    """One raw column and the ``width`` features it becomes.

    ``numeric`` gives one feature, ``categorical`` one indicator per category, ``vector`` one per element.
    ``fill`` (width numbers, or none) stands in for missing values; without it a missing value is an error.
    """

    name: str
    kind: Literal["numeric", "categorical", "vector"] = "numeric"
    width: int = 1
    categories: tuple[str, ...] = ()
    fill: tuple[float, ...] = ()

    @property
    def feature_names(self) -> list[str]:
        if self.kind == "numeric":
            return [self.name]
        parts = self.categories if self.kind == "categorical" else range(self.width)
        return [f"{self.name}={part}" if self.kind == "categorical" else f"{self.name}[{part}]" for part in parts]

    def values(self, column: Column, place: Place) -> npt.NDArray[Any]:
        """The features of n rows, shape (n, width): finite, or `DataError` naming file, row and column."""
        if self.kind == "categorical":
            return self._indicators(column, place)
        values = numbers(column, self.name, place)
        if values.ndim == 1:
            values = values[:, None]
        if values.shape[1] != self.width:
            raise DataError(
                f"expected {self.width} values a row, got {values.shape[1]}", file=place.file, column=self.name
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
            raise bad_value(values[row, part], self.feature_names[part], place, row)
        return np.where(missing, np.asarray(self.fill, np.float64), values)

    def _indicators(self, column: Column, place: Place) -> npt.NDArray[np.float64]:
        import pyarrow.compute as pc  # as in `nnlib.data.columns`

        text = texts(column, self.name, place)
        codes = pc.index_in(text, value_set=pa.array(self.categories, pa.string()))
        missing = np.asarray(text.is_null())
        unknown = np.asarray(codes.is_null()) & ~missing
        if unknown.any():
            row = int(unknown.argmax())
            raise DataError(
                f"{text[row].as_py()!r} is none of the {len(self.categories)} known categories",
                file=place.file,
                row=place.row + row + 1,
                column=self.name,
            )
        if missing.any() and not self.fill:
            raise bad_value(None, self.name, place, int(missing.argmax()))
        values = np.zeros((len(text), self.width))
        present = np.flatnonzero(~missing)
        values[present, np.asarray(codes.drop_null())] = 1.0
        if missing.any():
            values[missing] = self.fill
        return values


@dataclass(frozen=True)
class Encoding:
    """Raw columns -> ``x`` (stored as ``dtype``; its value is ``stored * scale + offset``) and ``y``.

    ``label`` is the raw label column, ``classes`` the class names in index order (none: regression) and ``label_map``
    renames raw labels before they are looked up among them.
    """

    columns: tuple[FeatureColumn, ...]
    label: str | None = None
    classes: tuple[str, ...] = ()
    label_map: Mapping[str, str] = field(default_factory=dict)
    dtype: Literal["float32", "uint8"] = "float32"
    scale: float = 1.0
    offset: float = 0.0

    @cached_property
    def features(self) -> int:
        return sum(column.width for column in self.columns)

    @cached_property
    def feature_names(self) -> list[str]:
        return [name for column in self.columns for name in column.feature_names]

    def stored(self, columns: Columns, place: Place | None = None) -> npt.NDArray[Any]:
        """``x`` as a shard stores it, shape (n, features), dtype float32 or uint8."""
        place = place or Place()
        blocks = []
        for column in self.columns:
            if column.name not in columns:
                raise DataError(f"column {column.name!r} is missing", file=place.file)
            blocks.append(column.values(columns[column.name], place))
        rows = len(blocks[0]) if blocks else 0
        x = np.empty((rows, self.features), self.dtype)
        start = 0
        for column, block in zip(self.columns, blocks, strict=True):
            part = x[:, start : start + column.width]
            with np.errstate(over="ignore", invalid="ignore"):
                np.copyto(part, block, casting="unsafe")
            if self.dtype == "uint8":
                self._check(part == block, block, column, place, "is not a whole number from 0 to 255")
            elif block.dtype == np.float64:
                self._check(np.isinf(block) | ~np.isinf(part), block, column, place, "does not fit float32")
            start += column.width
        return x

    @staticmethod
    def _check(
        good: npt.NDArray[np.bool_], block: npt.NDArray[Any], column: FeatureColumn, place: Place, what: str
    ) -> None:
        if not good.all():
            row, part = (int(index[0]) for index in np.nonzero(~good))
            name = column.feature_names[part]
            raise DataError(f"{block[row, part]} {what}", file=place.file, row=place.row + row + 1, column=name)

    def encode(self, columns: Columns, place: Place | None = None) -> npt.NDArray[np.float32]:
        """The values a model sees, shape (n, features), float32."""
        return self.decoded(self.stored(columns, place))

    def decoded(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Stored ``x`` -> its values in float32."""
        if self.scale == 1.0 and self.offset == 0.0:
            return stored.astype(np.float32, copy=False)
        values: npt.NDArray[np.float32] = stored.astype(np.float32)
        values *= np.float32(self.scale)
        values += np.float32(self.offset)
        return values

    def labels(self, column: Column, place: Place | None = None) -> npt.NDArray[Any]:
        """``y`` of n rows: int32 class indices, or float64 targets when there are no classes."""
        place = place or Place()
        name = self.label or "label"
        if not self.classes:
            targets = numbers(column, name, place).astype(np.float64)
            if not np.isfinite(targets).all():
                row = int((~np.isfinite(targets)).argmax())
                raise bad_value(targets[row], name, place, row)
            return targets
        known = {label: index for index, label in enumerate(self.classes)}
        encoded = plain(column, name, place).dictionary_encode()
        if encoded.null_count:
            raise DataError(
                "the label is missing",
                file=place.file,
                row=place.row + int(np.asarray(encoded.is_null()).argmax()) + 1,
                column=name,
            )
        distinct = encoded.dictionary.to_pylist()
        indices = [known.get(self.class_of(value), -1) for value in distinct]
        y: npt.NDArray[Any] = np.asarray(indices, np.int32)[np.asarray(encoded.indices)]
        if (y < 0).any():
            row = int((y < 0).argmax())
            value = distinct[encoded.indices[row].as_py()]
            raise DataError(
                f"label {value!r} is none of the {len(self.classes)} classes",
                file=place.file,
                row=place.row + row + 1,
                column=name,
            )
        return y

    def class_of(self, value: Any) -> str:
        """The class a raw label means."""
        name = class_name(value)
        return self.label_map.get(name, name)

    def to_json(self) -> dict[str, Any]:
        return {
            "columns": [
                {
                    "name": column.name,
                    "kind": column.kind,
                    "width": column.width,
                    "categories": list(column.categories),
                    "fill": list(column.fill),
                }
                for column in self.columns
            ],
            "label": self.label,
            "classes": list(self.classes),
            "label_map": dict(self.label_map),
            "dtype": self.dtype,
            "scale": self.scale,
            "offset": self.offset,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Encoding:
        columns = columns_from_json(data["columns"])
        if data["dtype"] not in ("float32", "uint8"):
            raise MismatchError(f"unknown dtype {data['dtype']!r}")
        return cls(
            columns,
            data["label"],
            tuple(data["classes"]),
            dict(data["label_map"]),
            data["dtype"],
            float(data["scale"]),
            float(data["offset"]),
        )


def columns_from_json(data: Sequence[Mapping[str, Any]]) -> tuple[FeatureColumn, ...]:
    """Columns as `Encoding.to_json` writes them."""
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


def plain_encoding(features: int, dtype: Literal["float32", "uint8"], **rest: Any) -> Encoding:
    """The encoding of one vector column ``x`` taken as it is."""
    return Encoding((FeatureColumn("x", "vector", features),), dtype=dtype, **rest)
