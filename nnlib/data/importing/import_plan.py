"""The plan of an import: what is decided about a dataset once all rows of the input were read.

A plan is sent to tasks as JSON, so that each can encode the rows of some files, or write some shards. The bytes are
those of one process that does it all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nnlib.core.errors import UsageError
from nnlib.core.notes import note
from nnlib.data.dataset import Dataset, LearningTask, Shard, shard_schema
from nnlib.data.encoding import Encoding
from nnlib.data.importing.column_choice import ColumnChoice
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.read_options import ReadOptions
from nnlib.data.importing.survey import Survey
from nnlib.data.shard_writer import default_row_group_rows

BUCKET_BYTES = 16 << 20
"""Bytes of rows sorted at a time; sorting takes several times this."""

PIXEL_SCALE = 1 / 255


@dataclass(frozen=True)
class ImportPlan:
    """Everything about a dataset but its rows.

    ``extra_types``: name of each extra column -> ``int64`` or ``string``. ``class_rows``: rows of each class, where
    rows go to shards by label; else None.
    """

    choice: ColumnChoice
    encoding: Encoding
    task: LearningTask
    shape: tuple[int, ...]
    extra_types: dict[str, str]
    rows: int
    shards: int
    seed: int
    row_group_rows: int
    name: str
    class_rows: tuple[int, ...] | None

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the shards."""
        return shard_schema(self.task, self.encoding.dtype, self.encoding.features, self.extra_types)

    @cached_property
    def buckets(self) -> int:
        """The number of buckets, ranges of the order hash, that the rows of a shard are sorted by one after another."""
        row_bytes = self.encoding.features * np.dtype(self.encoding.dtype).itemsize + 16 + 32 * len(self.extra_types)
        return max(1, math.ceil(math.ceil(self.rows / self.shards) * row_bytes / BUCKET_BYTES))

    def dataset(self, address: str, shards: Sequence[Shard]) -> Dataset:
        """Return the dataset at ``address`` that consists of ``shards``."""
        return Dataset(
            address=address,
            name=self.name,
            task=self.task,
            shape=self.shape,
            features=self.encoding.features,
            x_dtype=self.encoding.dtype,
            x_scale=self.encoding.scale,
            x_offset=self.encoding.offset,
            classes=self.encoding.classes,
            rows=self.rows,
            row_group_rows=self.row_group_rows,
            columns=self.extra_types,
            shards=tuple(shards),
            encoding=self.encoding,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values; `from_json` is the inverse."""
        return {
            "choice": self.choice.to_json(),
            "encoding": self.encoding.to_json(),
            "task": self.task,
            "shape": list(self.shape),
            "kept": self.extra_types,
            "rows": self.rows,
            "shards": self.shards,
            "seed": self.seed,
            "row_group_rows": self.row_group_rows,
            "name": self.name,
            "class_rows": None if self.class_rows is None else list(self.class_rows),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ImportPlan:
        """Return the plan that `to_json` wrote."""
        return cls(
            ColumnChoice.from_json(data["choice"]),
            Encoding.from_json(data["encoding"]),
            data["task"],
            tuple(data["shape"]),
            dict(data["kept"]),
            data["rows"],
            data["shards"],
            data["seed"],
            data["row_group_rows"],
            data["name"],
            None if data["class_rows"] is None else tuple(data["class_rows"]),
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def make_plan(table: Table, choice: ColumnChoice, survey: Survey, options: ImportOptions) -> ImportPlan:
    """Decide about the dataset, from the survey of all rows; ``table`` is the first of the input.

    Raises `DataError` and `UsageError` where the rows and the options make no dataset.
    """
    if options.shards > survey.rows:
        raise UsageError(f"--shards {options.shards} is more than the {survey.rows} rows")
    choice = replace(choice, dtype=survey.stored_type(choice))
    task = survey.label.infer_task(options.task)
    names_classes = bool(options.by_label or options.label_map or options.classes)
    if options.task == "auto" and not names_classes and (doubt := survey.label.doubt_of(task)):
        note(doubt)
    if names := survey.wide_features(choice):
        shown = _listed(names)
        note(f"features are stored as float64: float32 would merge different values of {shown} (--dtype float32 does)")
    if names := survey.rounded_features(choice):
        shown = _listed(names)
        note(f"integers above 2**53 are rounded, so close ones become one value: {shown} (ids are no --features)")
    if task != "classification" and (options.by_label or options.label_map):
        raise UsageError("--by-label and --map-label need classes, but the target is numeric (--task regression)")
    encoding = _encoding(table, choice, survey, task, options)
    row_bytes = encoding.features * np.dtype(encoding.dtype).itemsize
    return ImportPlan(
        choice=choice,
        encoding=encoding,
        task=task,
        shape=_shape(options, encoding, table),
        extra_types=survey.extra_types,
        rows=survey.rows,
        shards=options.shards,
        seed=options.seed,
        row_group_rows=options.row_group_rows or default_row_group_rows(row_bytes),
        name=options.name or Path(table.file).name.partition(".")[0] or "dataset",
        class_rows=count_class_rows(encoding, survey.label.counts) if options.by_label else None,
    )


def count_class_rows(encoding: Encoding, label_rows: Mapping[str, int]) -> tuple[int, ...]:
    """Return the rows of each class, in index order, from the rows of each label of the input."""
    counts = dict.fromkeys(encoding.classes, 0)
    for name, count in label_rows.items():
        if (class_ := encoding.class_of(name)) is not None:
            counts[class_] += count
    return tuple(counts.values())


def _encoding(
    table: Table, choice: ColumnChoice, survey: Survey, task: LearningTask, options: ImportOptions
) -> Encoding:
    label_map = {str(old): str(new) for old, new in options.label_map.items()}
    if task == "classification":
        label_map = survey.label.rename(label_map)
    return Encoding(
        survey.feature_columns(choice),
        choice.label,
        survey.label.classes(label_map, options.classes) if task == "classification" else (),
        label_map,
        survey.stored_type(choice),
        PIXEL_SCALE if choice.dtype == "uint8" else 1.0,
        reading=_stored_reading(table, choice),
        unknown_category=options.unknown_category,
    )


def _stored_reading(table: Table, choice: ColumnChoice) -> ReadOptions | None:
    """Return how the input was read, for predictions to read files alike; None if it was no file.

    The columns of the input are stored where they are others than the features in order and, last, the label.
    """
    if table.reading is None:
        return None
    used = (*(column.name for column in choice.features), choice.label)
    columns = table.columns if table.columns != used else ()
    return replace(
        table.reading, features=(), label=None, likely_features=(), likely_label=None, columns=columns, row_shape=()
    )


def _shape(options: ImportOptions, encoding: Encoding, table: Table) -> tuple[int, ...]:
    if options.shape is None:
        only = encoding.columns[0].name if len(encoding.columns) == 1 else None
        return table.shapes.get(only, (encoding.features,)) if only else (encoding.features,)
    if math.prod(options.shape) != encoding.features:
        raise UsageError(f"--shape {'x'.join(map(str, options.shape))}: a row has {encoding.features} features")
    return options.shape
