"""A dataset: a directory of Parquet shards and ``dataset.json``, written last (no manifest, no dataset)."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from nnlib.core.errors import DataError, MismatchError
from nnlib.data.encoding import Encoding
from nnlib.storage import Storage, storage

MANIFEST = "dataset.json"
FORMAT_VERSION = 1

MOST_ROWS_A_BYTE = 64
"""No shard holds more: every row has an id of its own. A larger number is a lie that would fill the memory."""

MOST_GROUP_ROWS = 10**9

Task = Literal["classification", "regression"]
XType = Literal["float32", "uint8"]


@dataclass(frozen=True)
class Shard:
    """One Parquet file. ``class_counts`` has one entry per class, none for regression."""

    name: str
    rows: int
    row_groups: int
    bytes: int
    sha256: str
    class_counts: tuple[int, ...]


def shard_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


@dataclass(frozen=True)
class Dataset:
    """What the manifest says. A row's value of feature j is ``x[j] * x_scale + x_offset``.

    Shards have the columns ``row`` (int64, position in the input from 0), ``x`` (fixed_size_list[features]),
    ``y`` (int32 class index, or float64 target) and the kept ``columns`` (name -> "string" or "int64").
    """

    address: str
    name: str
    task: Task
    shape: tuple[int, ...]
    features: int
    x_dtype: XType
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
        """Read the manifest at an address; `DataError` if there is none or it cannot be trusted."""
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
    def from_json(cls, address: str, data: dict[str, Any]) -> Dataset:
        """The inverse of `to_json`, with every count checked."""
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
            shards=tuple(
                Shard(
                    str(shard["name"]),
                    int(shard["rows"]),
                    int(shard["row_groups"]),
                    int(shard["bytes"]),
                    str(shard["sha256"]),
                    tuple(int(count) for count in shard["class_counts"]),
                )
                for shard in data["shards"]
            ),
            encoding=Encoding.from_json(data["encoding"]),
        )
        dataset._check()
        return dataset

    def _check(self) -> None:
        """Refuse a manifest that contradicts itself."""
        classification = self.task == "classification"
        checks = {
            "task": self.task in ("classification", "regression"),
            "x_dtype": self.x_dtype in ("float32", "uint8"),
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
            "shards": [
                {
                    "name": shard.name,
                    "rows": shard.rows,
                    "row_groups": shard.row_groups,
                    "bytes": shard.bytes,
                    "sha256": shard.sha256,
                    "class_counts": list(shard.class_counts),
                }
                for shard in self.shards
            ],
            "encoding": self.encoding.to_json(),
        }

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over what decides the content: the shards' hashes and what their numbers mean."""
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
        """Rows of each class over all shards; empty for regression."""
        return tuple(sum(counts) for counts in zip(*(shard.class_counts for shard in self.shards), strict=True))

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of every shard."""
        return shard_schema(self.task, self.x_dtype, self.features, self.columns)

    def storage(self) -> Storage:
        return storage(self.address)


def shard_schema(task: Task, x_dtype: XType, features: int, columns: dict[str, str]) -> pa.Schema:
    """The Arrow schema of a shard: ``row``, ``x``, ``y``, then the kept columns (which alone may hold nulls)."""
    element = pa.field("element", pa.uint8() if x_dtype == "uint8" else pa.float32(), nullable=False)
    fields = [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("x", pa.list_(element, features), nullable=False),
        pa.field("y", pa.int32() if task == "classification" else pa.float64(), nullable=False),
    ]
    kinds = {"string": pa.string(), "int64": pa.int64()}
    return pa.schema(fields + [pa.field(name, kinds[kind]) for name, kind in columns.items()])
