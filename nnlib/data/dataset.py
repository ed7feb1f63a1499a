"""A dataset: a folder of Parquet shards and the manifest ``dataset.json``, which is written last."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import pyarrow as pa

from nnlib.core.errors import DataError, MismatchError
from nnlib.data.encoding import Encoding, FeatureType
from nnlib.data.importing.text.text_options import TextOptions
from nnlib.storage import Storage, storage

MANIFEST = "dataset.json"
FORMAT_VERSION = 1

MOST_ROWS_A_BYTE = 64
"""No shard holds more rows per byte: every row has another id. A manifest that says more would fill the memory."""

MOST_GROUP_ROWS = 10**9

LearningTask = Literal["classification", "regression", "language"]

FEATURE_TYPES: dict[FeatureType, pa.DataType] = {
    "float32": pa.float32(),
    "float64": pa.float64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
}
"""How a manifest names the type of stored features -> the type in the shards."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a dataset. ``class_counts`` has the rows of each class, none for regression."""

    name: str
    rows: int
    row_groups: int
    bytes: int
    sha256: str
    class_counts: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the shard as JSON values; `from_json` is the inverse."""
        return {
            "name": self.name,
            "rows": self.rows,
            "row_groups": self.row_groups,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "class_counts": list(self.class_counts),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Shard:
        """Return the shard that `to_json` wrote. Raises `KeyError`, `TypeError` or `ValueError` for other values."""
        return cls(
            str(data["name"]),
            int(data["rows"]),
            int(data["row_groups"]),
            int(data["bytes"]),
            str(data["sha256"]),
            tuple(int(count) for count in data["class_counts"]),
        )


def shard_name(index: int) -> str:
    """Return the file name of a shard, by its index from 0."""
    return f"part-{index:05d}.parquet"


@dataclass(frozen=True)
class Dataset:
    """A dataset as its manifest describes it.

    Shards have the columns ``row`` (int64 id: the position in the input, from 0), ``x`` (fixed_size_list[features] of
    ``x_dtype``), ``y`` (int32 class index, float64 target, or of language how many tokens count) and the extra
    ``columns`` (name -> ``string`` or ``int64``). The value of feature j of a row is ``x[j] * x_scale + x_offset``.
    """

    address: str
    name: str
    task: LearningTask
    shape: tuple[int, ...]
    features: int
    x_dtype: FeatureType
    x_scale: float
    x_offset: float
    classes: tuple[str, ...]
    rows: int
    row_group_rows: int
    columns: dict[str, str]
    shards: tuple[Shard, ...]
    encoding: Encoding

    @classmethod
    def open(cls, address: str) -> Dataset:
        """Read the manifest of the dataset at an address.

        Raises `DataError` if there is none or it is damaged, and `MismatchError` if it contradicts itself.
        """
        files = storage(address)
        if not files.exists(MANIFEST):
            raise DataError(
                f"no dataset here: there is no {MANIFEST}",
                hint="make one with `nnjobs data import`; an import that was interrupted leaves none: run it again",
                dataset=address,
            )
        try:
            data = json.loads(files.read(MANIFEST))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{MANIFEST} is not JSON: {error}", dataset=address) from None
        try:
            return cls.from_json(address, data)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"{MANIFEST} lacks or garbles {error}", dataset=address) from None

    @classmethod
    def from_json(cls, address: str, data: Mapping[str, Any]) -> Dataset:
        """Return the dataset at ``address`` whose manifest `to_json` wrote.

        Raises `DataError` for another version, `MismatchError` for a manifest that contradicts itself, and `KeyError`,
        `TypeError` or `ValueError` for other values.
        """
        version = data["format_version"]
        if version != FORMAT_VERSION:
            raise DataError(
                f"format_version {version} is not {FORMAT_VERSION}, the one this nnjobs reads",
                hint="use the nnjobs that wrote it, or import the data again",
                dataset=address,
            )
        dataset = cls(
            address=address,
            name=str(data["name"]),
            task=data["task"],
            shape=tuple(int(side) for side in data["shape"]),
            features=int(data["features"]),
            x_dtype=data["x_dtype"],
            x_scale=float(data["x_scale"]),
            x_offset=float(data["x_offset"]),
            classes=tuple(str(name) for name in data["classes"]),
            rows=int(data["rows"]),
            row_group_rows=int(data["row_group_rows"]),
            columns={str(name): str(kind) for name, kind in data["columns"].items()},
            shards=tuple(Shard.from_json(shard) for shard in data["shards"]),
            encoding=Encoding.from_json(data["encoding"]),
        )
        dataset._check()
        return dataset

    def _check(self) -> None:
        """Raise `MismatchError` if the manifest contradicts itself."""
        classification = self.task == "classification"
        is_language = self.text is not None and self.text.kind == "blocks"
        checks = {
            "task": self.task in get_args(LearningTask),
            "task (text)": is_language == (self.task == "language"),
            "text (width of a row)": self.text is None or self.text.width == self.features,
            "x_dtype": self.x_dtype in FEATURE_TYPES,
            "features (must be the product of shape)": self.features == math.prod(self.shape) > 0,
            "features (must be those of encoding)": self.features == self.encoding.features,
            "classes": (len(self.classes) >= 2) == classification and len(set(self.classes)) == len(self.classes),
            "rows (must be the sum of the shards')": self.rows == sum(shard.rows for shard in self.shards) > 0,
            "row_group_rows": 0 < self.row_group_rows <= MOST_GROUP_ROWS,
            "x_scale": math.isfinite(self.x_scale) and math.isfinite(self.x_offset) and self.x_scale != 0.0,
            "columns": all(kind in ("string", "int64") for kind in self.columns.values()),
            "shards (names)": [shard.name for shard in self.shards] == [shard_name(k) for k in range(len(self.shards))],
            "shards (class_counts)": all(
                len(shard.class_counts) == len(self.classes)
                and min(shard.class_counts, default=0) >= 0
                and (not classification or sum(shard.class_counts) == shard.rows)
                for shard in self.shards
            ),
        }
        for what, good in checks.items():
            if not good:
                raise MismatchError(f"{MANIFEST} contradicts itself in {what}", dataset=self.address)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON values; `from_json` is the inverse."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "task": self.task,
            "shape": list(self.shape),
            "features": self.features,
            "x_dtype": self.x_dtype,
            "x_scale": self.x_scale,
            "x_offset": self.x_offset,
            "classes": list(self.classes),
            "rows": self.rows,
            "row_group_rows": self.row_group_rows,
            "columns": dict(self.columns),
            "fingerprint": self.fingerprint,
            "shards": [shard.to_json() for shard in self.shards],
            "encoding": self.encoding.to_json(),
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the content: the hashes of the shards and the meaning of their numbers."""
        facts = {
            "task": self.task,
            "shape": list(self.shape),
            "x": [self.x_dtype, self.x_scale, self.x_offset],
            "classes": list(self.classes),
            "columns": dict(self.columns),
            "shards": [[shard.name, shard.rows, shard.sha256] for shard in self.shards],
        }
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Rows of each class in all shards together; empty for regression."""
        return tuple(sum(counts) for counts in zip(*(shard.class_counts for shard in self.shards), strict=True))

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of every shard."""
        return shard_schema(self.task, self.x_dtype, self.features, self.columns)

    @property
    def text(self) -> TextOptions | None:
        """How the dataset's text became rows of tokens; None for one of no text."""
        return self.encoding.reading.text if self.encoding.reading else None

    def storage(self) -> Storage:
        """Return the storage at the dataset's address."""
        return storage(self.address)


def shard_schema(task: LearningTask, x_dtype: FeatureType, features: int, columns: dict[str, str]) -> pa.Schema:
    """Return the Arrow schema of a shard: ``row``, ``x``, ``y``, then the extra ``columns``, which alone may hold
    nulls."""
    element = pa.field("element", FEATURE_TYPES[x_dtype], nullable=False)
    fields = [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("x", pa.list_(element, features), nullable=False),
        pa.field("y", pa.int32() if task == "classification" else pa.float64(), nullable=False),
    ]
    kinds = {"string": pa.string(), "int64": pa.int64()}
    return pa.schema(fields + [pa.field(name, kinds[kind]) for name, kind in columns.items()])
