"""The second and third pass of an import: encode rows, partition them by shard, and sort each shard.

A partition holds the rows of one bucket of one shard: partition ``shard * buckets + bucket``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from nnlib.core.liveness import heartbeat
from nnlib.data.columns import Column, RowOrigin
from nnlib.data.importing.column_choice import ColumnChoice
from nnlib.data.importing.formats.table import rows_per_chunk
from nnlib.data.importing.import_plan import ImportPlan
from nnlib.data.importing.shard_assignment import LabelShardAssigner, assign_rows, bucket_of, order_hash
from nnlib.data.importing.spill_buffer import SpillBuffer
from nnlib.data.shard_writer import features_of, record_batch, reorder_rows


def encode_rows(
    surveyed: SpillBuffer, plan: ImportPlan, origins: Iterable[RowOrigin], first_row: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that a survey put into a buffer as batches of the shards' schema.

    ``origins``: where each batch in the buffer came from. ``first_row``: the id of the first row. Raises `DataError`
    for values that cannot be encoded.
    """
    encoding = plan.encoding
    size = rows_per_chunk(encoding.features * 8)  # one-hot columns are wider than the texts in the buffer
    for origin, surveyed_batch in zip(origins, surveyed.take(0), strict=True):
        for start in range(0, len(surveyed_batch), size):
            heartbeat()
            batch = surveyed_batch.slice(start, size)
            here = RowOrigin(origin.file, origin.row + start)
            rows = np.arange(first_row, first_row + len(batch), dtype=np.int64)
            x = encoding.encode(_feature_columns(batch, plan.choice), here)
            y = encoding.encode_labels(batch.column("label"), here)
            extra = {
                name: batch.column(f"extra {name}").cast(plan.schema.field(name).type) for name in plan.extra_types
            }
            yield record_batch(plan.schema, rows, x, y, extra)
            first_row += len(batch)


def _feature_columns(batch: pa.RecordBatch, choice: ColumnChoice) -> dict[str, Column]:
    """Return the feature columns of a batch from the buffer, by their names in the input."""
    columns: dict[str, Column] = {name: batch.column(f"text {name}") for name in choice.categorical}
    dense = features_of(batch) if "x" in batch.schema.names else np.empty((len(batch), 0))
    start = 0
    for column in choice.features:
        if column.kind != "categorical":
            columns[column.name] = dense[:, start : start + column.width]
            start += column.width
    return columns


class ShardPartitioner:
    """Partitions encoded rows by shard and bucket, and returns the rows of each shard in their order.

    ``class_rows_before``: the rows of each class before the first row to be partitioned, where rows go to shards by
    label; else None.
    """

    def __init__(self, plan: ImportPlan, class_rows_before: Sequence[int] | None = None) -> None:
        self._plan = plan
        self._by_label = (
            None if plan.class_rows is None else LabelShardAssigner(plan.class_rows, plan.shards, class_rows_before)
        )

    def partition(self, batches: Iterator[pa.RecordBatch], buffer: SpillBuffer) -> None:
        """Put rows, which must come in the order of their ids, into their partitions of ``buffer``."""
        plan = self._plan
        for batch in batches:
            rows = batch.column("row").to_numpy()
            if self._by_label is not None:
                shards = self._by_label.assign(batch.column("y").to_numpy())
            else:
                shards = assign_rows(rows, plan.shards, plan.seed)
            partition = shards * plan.buckets + bucket_of(order_hash(rows, plan.seed), plan.buckets)
            order = np.argsort(partition, kind="stable")
            ordered, partition = reorder_rows(batch, order), partition[order]
            starts = np.flatnonzero(np.diff(partition, prepend=-1))
            for start, stop in zip(starts, [*starts[1:], len(partition)], strict=True):
                buffer.put(int(partition[start]), ordered.slice(start, stop - start))

    def partitions_of(self, shard: int) -> range:
        """Return the numbers of a shard's partitions."""
        return range(shard * self._plan.buckets, (shard + 1) * self._plan.buckets)

    def sorted_rows(self, shard: int, buffer: SpillBuffer) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a shard in their order, whatever the order in which they were put into ``buffer``."""
        for partition in self.partitions_of(shard):
            heartbeat()
            batches = list(buffer.take(partition))
            if not batches:
                continue
            batch = pa.concat_batches(batches)
            batches.clear()
            rows = batch.column("row").to_numpy()
            yield reorder_rows(batch, np.argsort(order_hash(rows, self._plan.seed)))
