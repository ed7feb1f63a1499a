"""What tasks on the driver's machine write to standard error, kept in the run directory: ``task-logs/``.

Only tasks that write something leave a file, one a worker; of a long one only the end is kept.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time

from nnlib.core.errors import StorageError
from nnlib.run.directory import SPEC, TASK_LOGS
from nnlib.storage import Storage

MOST_BYTES = 256 << 10
"""Bytes that are kept of a worker's messages: the newest."""
MOST_OF_ATTEMPT = 64 << 10
"""Bytes that are kept of one attempt's messages: the last ones."""

_HEADER = re.compile(r"^== (.+) ==$", re.MULTILINE)


class TaskLogs:
    """Adds to the messages of workers. Threads may share one."""

    def __init__(self, run: Storage) -> None:
        """``run``: the run directory, which may not be there yet: what is added before is dropped."""
        self._run = run
        self._texts: dict[int, bytes] = {}
        self._changed: set[int] = set()
        self._written = time.monotonic()
        self._changing = threading.Lock()

    def add(self, worker: int, title: str, messages: bytes) -> None:
        """Add an attempt's messages under a title, such as "train 3, attempt 1"; nothing if there are none."""
        if not messages.strip():
            return
        part = messages[-MOST_OF_ATTEMPT:]
        with self._changing:
            if worker not in self._texts:
                self._texts[worker] = read_task_log(self._run, worker).encode()
            text = self._texts[worker] + f"== {title} ==\n".encode() + part + b"\n" * (not part.endswith(b"\n"))
            self._texts[worker] = text[-MOST_BYTES:]
            self._changed.add(worker)
            if time.monotonic() - self._written >= self._run.journal_seconds:
                self._write()

    def flush(self) -> None:
        """Write what is new. Messages that cannot be written must not end a run."""
        with self._changing:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        with contextlib.suppress(StorageError):
            if self._changed and self._run.exists(SPEC):
                for worker in sorted(self._changed):
                    self._run.write(_name(worker), self._texts[worker])
                self._changed.clear()


def read_task_log(run: Storage, worker: int) -> str:
    """Return what is kept of a worker's messages in the run directory ``run``; "" if nothing is."""
    if not run.exists(_name(worker)):
        return ""
    return run.read(_name(worker)).decode("utf-8", "replace")


def parts_of(text: str, job: str) -> str:
    """Return those parts of a worker's messages whose titles begin with the name of a job, such as "train 3"."""
    heads = list(_HEADER.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)] * bool(heads)
    return "".join(text[head.start() : end] for head, end in zip(heads, ends, strict=True) if _is_of(head[1], job))


def _is_of(title: str, job: str) -> bool:
    return title == job or title.startswith(f"{job},")


def _name(worker: int) -> str:
    return f"{TASK_LOGS}/worker-{worker:06d}.log"
