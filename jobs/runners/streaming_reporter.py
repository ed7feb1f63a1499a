"""Reports a task's progress and counters to Hadoop.

Streaming reads ``reporter:`` lines from a task's standard error. A status counts as progress. So it is sent only while
the task makes progress (`nnlib.core.liveness`), or waits for other workers of its group, which it watches itself. A
task that hangs sends nothing, and Hadoop kills it after ``mapreduce.task.timeout``.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, BinaryIO, Protocol

from nnlib.core.liveness import HEARTBEAT

EVERY_SECONDS = 3.0

GROUP = "nnjobs"


class ReportingJob(Protocol):
    """What the reporter needs of an mrjob job."""

    stderr: BinaryIO

    def set_status(self, msg: str) -> None:
        """Write a status line."""

    def increment_counter(self, group: str, counter: str, amount: int = 1) -> None:
        """Add to a counter."""


class Reporter:
    """Reports on one task, from entering the context to leaving it."""

    def __init__(self, job: ReportingJob, every_seconds: float = EVERY_SECONDS) -> None:
        self._job = job
        self._every = every_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="reporter", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        seen = HEARTBEAT.count
        while not self._done.wait(self._every):
            if HEARTBEAT.count != seen or HEARTBEAT.is_waiting:
                seen = HEARTBEAT.count
                self._job.set_status(status(HEARTBEAT.activity))

    def begin(self, worker: int) -> None:
        """Write into the log which worker's work begins: the lines that follow are about it."""
        self._job.stderr.write(f"nnjobs: worker {worker} on {platform.node()}\n".encode())
        self._job.stderr.flush()

    def count(self, counts: Mapping[str, int]) -> None:
        """Add amounts to the job's counters, by name."""
        for name, amount in counts.items():
            self._job.increment_counter(GROUP, name, amount)


def status(doing: dict[str, Any]) -> str:
    """Return what a task does now, in words: "train: round 3 epoch 7 loss 0.123"."""
    facts = [f"{name} {_shown(doing[name])}" for name in ("trial", "round", "epoch", "loss") if name in doing]
    return f"{doing.get('phase', 'reading')}: {' '.join(facts)}".rstrip(": ")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
