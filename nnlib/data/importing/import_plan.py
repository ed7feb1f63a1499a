"""What is known of a dataset once all its raw rows were seen, and with it: rows -> shards.

A plan travels as JSON, so that many tasks can encode and deal the rows of a file each, and write a shard each; the
bytes are those of one process that does it all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from nnlib.core.liveness import beat
from nnlib.data.columns import Column, Place
from nnlib.data.dataset import Dataset, Shard, Task, shard_schema
from nnlib.data.encoding import Encoding
from nnlib.data.importing.formats.table import chunk_rows
from nnlib.data.importing.shard_assignment import LabelDealer, bucket_of, deal, order_hash
from nnlib.data.importing.spill_buffer import Spool
from nnlib.data.importing.survey import Choice
from nnlib.data.shard_writer import matrix, record_batch, reordered

BUCKET_BYTES = 16 << 20
"""Raw bytes sorted at a time; a process holds several times this."""


@dataclass(frozen=True)
class ImportPlan:
    """Everything about a dataset but its rows. ``class_rows`` are rows by class, where they are dealt by label."""

    choice: Choice
    encoding: Encoding
    task: Task
    shape: tuple[int, ...]
    kept: dict[str, str]
    rows: int
    shards: int
    seed: int
    row_group_rows: int
    name: str
    class_rows: tuple[int, ...] | None

    @cached_property
    def schema(self) -> pa.Schema:
        return shard_schema(self.task, self.encoding.dtype, self.encoding.features, self.kept)

    @cached_property
    def buckets(self) -> int:
        """Ranges of the hash by which the rows of a shard are sorted, one at a time."""
        row_bytes = self.encoding.features * np.dtype(self.encoding.dtype).itemsize + 16 + 32 * len(self.kept)
        return max(1, math.ceil(math.ceil(self.rows / self.shards) * row_bytes / BUCKET_BYTES))

    def dataset(self, address: str, shards: Sequence[Shard]) -> Dataset:
        """The dataset of the shards that were written."""
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
            columns=self.kept,
            shards=tuple(shards),
            encoding=self.encoding,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "choice": self.choice.to_json(),
            "encoding": self.encoding.to_json(),
            "task": self.task,
            "shape": list(self.shape),
            "kept": self.kept,
            "rows": self.rows,
            "shards": self.shards,
            "seed": self.seed,
            "row_group_rows": self.row_group_rows,
            "name": self.name,
            "class_rows": None if self.class_rows is None else list(self.class_rows),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ImportPlan:
        return cls(
            Choice.from_json(data["choice"]),
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


def class_rows(encoding: Encoding, label_rows: Mapping[str, int]) -> tuple[int, ...]:
    """Rows of each class, from those of each raw label."""
    counts = dict.fromkeys(encoding.classes, 0)
    for name, count in label_rows.items():
        counts[encoding.class_of(name)] += count
    return tuple(counts.values())


def encoded(raw: Spool, plan: ImportPlan, places: Iterable[Place], first: int = 0) -> Iterator[pa.RecordBatch]:
    """The spooled rows as batches of the shards' schema; ``first`` is the id of the first one."""
    encoding = plan.encoding
    size = chunk_rows(encoding.features * 8)  # one-hot columns are wider than what was spooled
    for place, spooled in zip(places, raw.take(0), strict=True):
        for start in range(0, len(spooled), size):
            beat()
            batch = spooled.slice(start, size)
            here = Place(place.file, place.row + start)
            rows = np.arange(first, first + len(batch), dtype=np.int64)
            x = encoding.stored(_columns(batch, plan.choice), here)
            y = encoding.labels(batch.column("label"), here)
            kept = {name: batch.column(f"kept {name}").cast(plan.schema.field(name).type) for name in plan.kept}
            yield record_batch(plan.schema, rows, x, y, kept)
            first += len(batch)


def _columns(batch: pa.RecordBatch, choice: Choice) -> dict[str, Column]:
    """The feature columns of a spooled batch by their raw names."""
    columns: dict[str, Column] = {name: batch.column(f"text {name}") for name in choice.categorical}
    dense = matrix(batch) if "x" in batch.schema.names else np.empty((len(batch), 0))
    start = 0
    for column in choice.features:
        if column.kind != "categorical":
            columns[column.name] = dense[:, start : start + column.width]
            start += column.width
    return columns


class Dealer:
    """Rows -> piles (one per shard and bucket) -> the shuffled rows of a shard. ``before`` are rows by class that lie
    before the first one dealt, where rows are dealt by label."""

    def __init__(self, plan: ImportPlan, before: Sequence[int] | None = None) -> None:
        self._plan = plan
        self._by_label = None if plan.class_rows is None else LabelDealer(plan.class_rows, plan.shards, before)

    def deal(self, batches: Iterator[pa.RecordBatch], piles: Spool) -> None:
        """Put the rows, given in order, on their piles."""
        plan = self._plan
        for batch in batches:
            rows = batch.column("row").to_numpy()
            if self._by_label is not None:
                shards = self._by_label.deal(batch.column("y").to_numpy())
            else:
                shards = deal(rows, plan.shards, plan.seed)
            pile = shards * plan.buckets + bucket_of(order_hash(rows, plan.seed), plan.buckets)
            order = np.argsort(pile, kind="stable")
            ordered, pile = reordered(batch, order), pile[order]
            starts = np.flatnonzero(np.diff(pile, prepend=-1))
            for start, stop in zip(starts, [*starts[1:], len(pile)], strict=True):
                piles.put(int(pile[start]), ordered.slice(start, stop - start))

    def piles(self, shard: int) -> range:
        """The numbers of a shard's piles."""
        return range(shard * self._plan.buckets, (shard + 1) * self._plan.buckets)

    def shard(self, index: int, piles: Spool) -> Iterator[pa.RecordBatch]:
        """A shard's rows in their order, whatever the order they were put in."""
        for pile in self.piles(index):
            beat()
            batches = list(piles.take(pile))
            if not batches:
                continue
            batch = pa.concat_batches(batches)
            batches.clear()
            rows = batch.column("row").to_numpy()
            yield reordered(batch, np.argsort(order_hash(rows, self._plan.seed)))
