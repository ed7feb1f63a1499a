"""Piles of record batches on the way to their shards: in memory while small, then in temporary files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from nnlib.core.errors import StorageError


class Spool:
    """Numbered piles, each first in, first out. Use as a context manager: leaving removes the files.

    A pile's file is a sequence of Arrow IPC streams, opened only to append, so the number of piles is not bounded by
    the number of files a process may open.
    """

    def __init__(self, beside: Path | None = None, memory_bytes: int = 64 << 20) -> None:
        """``beside``: the directory whose disk holds the files (default: the system's temporary one)."""
        self._beside = beside
        self._memory_bytes = memory_bytes
        self._waiting: dict[int, list[pa.RecordBatch]] = {}
        self._held = 0
        self._folder: Path | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def put(self, pile: int, batch: pa.RecordBatch) -> None:
        self._waiting.setdefault(pile, []).append(batch)
        self._held += batch.nbytes
        if self._held > self._memory_bytes:
            self._spill()

    def take(self, pile: int) -> Iterator[pa.RecordBatch]:
        """The pile's batches in the order they were put; each pile can be taken once."""
        path = self._path(pile) if self._folder else None
        if path is not None and path.exists():
            try:
                with path.open("rb") as stream:
                    end = path.stat().st_size
                    while stream.tell() < end:
                        with pa.ipc.open_stream(stream) as reader:
                            yield from reader
            finally:
                path.unlink()
        waiting = self._waiting.pop(pile, [])
        self._held -= sum(batch.nbytes for batch in waiting)
        waiting.reverse()
        while waiting:
            yield waiting.pop()

    def _path(self, pile: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{pile}.arrows"

    def _spill(self) -> None:
        try:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix=".nnjobs-import-", dir=self._beside))
            for pile, batches in self._waiting.items():
                with self._path(pile).open("ab") as stream, pa.ipc.new_stream(stream, batches[0].schema) as writer:
                    for batch in batches:
                        writer.write_batch(batch)
        except OSError as error:
            raise StorageError(f"cannot write temporary files: {error}", path=str(self._beside or "")) from error
        self._waiting.clear()
        self._held = 0
