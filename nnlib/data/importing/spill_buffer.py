"""A buffer that sorts record batches into partitions: in memory while it is small, then in temporary files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from nnlib.core.errors import StorageError

BUFFER_BYTES = 32 << 20
"""Bytes of record batches that a buffer of an import holds in memory before it spills them."""


class SpillBuffer:
    """Holds record batches in numbered partitions, each first in, first out; their schemas may differ.

    Use it as a context manager: leaving deletes its files. The file of a partition is a sequence of Arrow IPC streams
    and is open only while batches are appended. So the number of partitions is not bounded by the number of files that
    a process may open.
    """

    def __init__(self, parent: Path | None = None, memory_bytes: int = 64 << 20) -> None:
        """``parent``: the folder below which temporary files are made (None: the system's folder for them).

        ``memory_bytes``: bytes of batches held in memory; beyond them all are written to files.
        """
        self._parent = parent
        self._memory_bytes = memory_bytes
        self._batches: dict[int, list[pa.RecordBatch]] = {}
        self._bytes = 0
        self._folder: Path | None = None

    def __enter__(self) -> SpillBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def put(self, partition: int, batch: pa.RecordBatch) -> None:
        """Append a batch to a partition. Raises `StorageError` if temporary files cannot be written."""
        self._batches.setdefault(partition, []).append(batch)
        self._bytes += batch.nbytes
        if self._bytes > self._memory_bytes:
            self._spill()

    def take(self, partition: int) -> Iterator[pa.RecordBatch]:
        """Yield the batches of a partition in the order they were put, and forget them."""
        path = self._path(partition) if self._folder else None
        if path is not None and path.exists():
            try:
                with path.open("rb") as stream:
                    end = path.stat().st_size
                    while stream.tell() < end:
                        with pa.ipc.open_stream(stream) as reader:
                            yield from reader
            finally:
                path.unlink()
        in_memory = self._batches.pop(partition, [])
        self._bytes -= sum(batch.nbytes for batch in in_memory)
        in_memory.reverse()
        while in_memory:
            yield in_memory.pop()

    def clear(self) -> None:
        """Forget all batches."""
        self._batches.clear()
        self._bytes = 0
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _path(self, partition: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{partition}.arrows"

    def _spill(self) -> None:
        try:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix=".nnjobs-import-", dir=self._parent))
            for partition, batches in self._batches.items():
                with self._path(partition).open("ab") as stream:
                    for schema, alike in groupby(batches, lambda batch: batch.schema):
                        with pa.ipc.new_stream(stream, schema) as writer:
                            for batch in alike:
                                writer.write_batch(batch)
        except OSError as error:
            raise StorageError(f"cannot write temporary files: {error}", path=str(self._parent or "")) from error
        self._batches.clear()
        self._bytes = 0
