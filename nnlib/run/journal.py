"""Files of lines that grow while a run does: ``log`` and ``events.jsonl``."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from nnlib.core.errors import StorageError
from nnlib.run.directory import SPEC
from nnlib.storage import Storage


class Journal:
    """A file of lines that grows while the run does, rewritten as a whole now and then and at the end."""

    def __init__(self, place: Storage, name: str) -> None:
        self._storage, self._name = place, name
        self._text = place.read(name) if place.exists(name) else b""
        self._written = 0.0
        self._size = len(self._text)  # of the file

    def line(self, text: str) -> None:
        self._text += text.encode("utf-8", "backslashreplace") + b"\n"
        new = len(self._text) - self._size
        if self._storage.journal_is_due(time.monotonic() - self._written, self._size, new):
            self.flush()

    def record(self, **facts: Any) -> None:
        """A line of JSON with the time."""
        self.line(json.dumps({"time": round(time.time(), 3), **facts}, sort_keys=True, default=str))

    def flush(self) -> None:
        """Write what is new. A journal that cannot be written must not end a run: rounds tell of a full disk."""
        self._written = time.monotonic()
        with contextlib.suppress(StorageError):
            new = len(self._text) > self._size
            if new and self._storage.exists(SPEC):  # a run that was moved away needs no log in its old place
                self._storage.write(self._name, self._text)
                self._size = len(self._text)
