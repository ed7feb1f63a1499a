"""Predictions as a Parquet file."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq


class ParquetPredictions:
    """A Parquet file of predictions. ``stream`` needs not be seekable."""

    def __init__(self, stream: BinaryIO) -> None:
        self._sink = _Sink(stream)
        self._parquet: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Write rows, one row group for each call."""
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._sink, table.schema, compression="zstd")
        self._parquet.write_table(table)

    def add_metadata(self, name: str, text: str) -> None:
        """Write a text into the file's metadata. Call after `write`."""
        assert self._parquet is not None
        self._parquet.add_key_value_metadata({name: text})

    def close(self) -> None:
        """Write the end of the file."""
        if self._parquet is not None:
            self._parquet.close()

    def abandon(self) -> None:
        """Close Arrow's writer without writing the end of the file: a part of a file must not look like a whole one."""
        self._sink.is_abandoned = True
        if self._parquet is not None:
            self._parquet.close()


class _Sink:
    """What Arrow writes a file into. It counts the bytes, for it is asked where it is, and pipes do not know."""

    closed = False
    is_abandoned = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._written = stream, 0

    def write(self, data: bytes) -> int:
        """Write bytes."""
        if not self.is_abandoned:
            self._stream.write(data)
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._written

    def flush(self) -> None:
        """Do nothing: the code that opened the stream flushes it."""

    def close(self) -> None:
        """Do nothing: the code that opened the stream closes it."""
