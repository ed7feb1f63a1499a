"""The file in which a task leaves its partitioned rows for the tasks that write shards.

It holds the partitions in order, each an Arrow IPC stream or nothing. Then come the offsets at which each partition
begins and the last one ends, as little-endian unsigned 64-bit integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from nnlib.core.liveness import heartbeat
from nnlib.data.importing.import_plan import ImportPlan
from nnlib.data.importing.spill_buffer import SpillBuffer
from nnlib.storage import Storage


def write_partitions(stream: BinaryIO, buffer: SpillBuffer, plan: ImportPlan) -> None:
    """Write all partitions of ``buffer`` into ``stream``."""
    offsets = [0]
    for partition in range(plan.shards * plan.buckets):
        heartbeat()
        batches = list(buffer.take(partition))
        size = 0
        if batches:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, plan.schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            size = stream.write(sink.getvalue())
        offsets.append(offsets[-1] + size)
    stream.write(np.asarray(offsets, "<u8").tobytes())


def read_partitions(
    files: Storage, name: str, partitions: range, plan: ImportPlan
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (partition, batch) for the batches of consecutive partitions of the file ``name``."""
    with files.open(name) as stream:
        index_bytes = 8 * (plan.shards * plan.buckets + 1)
        stream.seek(stream.seek(0, 2) - index_bytes + 8 * partitions.start)
        offsets = np.frombuffer(stream.read(8 * (len(partitions) + 1)), "<u8").tolist()
        stream.seek(offsets[0])
        for partition, (start, stop) in zip(partitions, pairwise(offsets), strict=True):
            heartbeat()
            if stop > start:
                with pa.ipc.open_stream(stream.read(stop - start)) as reader:
                    yield from ((partition, batch) for batch in reader)
