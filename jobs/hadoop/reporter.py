"""What a task tells Hadoop while it works: signs of life, counters, and once what its node is like.

Streaming reads ``reporter:`` lines from a task's standard error. A status counts as progress, so it is sent only while
the task gets on (`nnlib.pulse`), or waits for others of its group, who are watched by it: one that hangs falls silent,
and Hadoop kills it after ``mapreduce.task.timeout``.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, Protocol

from jobs.tasks import DRIFT, METRICS, Line
from nnlib import numerics
from nnlib.plan import JobSpec, WorkerPlan
from nnlib.pulse import PULSE
from nnlib.wire import decode_record, encode_record

EVERY_SECONDS = 3.0
NODE_KEY = b"!node"
"""Of the lines that say what a node is like; like errors', they sort before all slices."""

GROUP = "nnjobs"


class Speaker(Protocol):
    """The ways of an mrjob job to tell Hadoop something."""

    stderr: BinaryIO

    def set_status(self, msg: str) -> None: ...

    def increment_counter(self, group: str, counter: str, amount: int = 1) -> None: ...


class Reporter:
    """Reports on one task, from entering to leaving."""

    def __init__(self, job: Speaker, every_seconds: float = EVERY_SECONDS) -> None:
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
        seen = PULSE.beats
        while not self._done.wait(self._every):
            if PULSE.beats != seen or PULSE.waits:
                seen = PULSE.beats
                self._job.set_status(status(PULSE.doing))

    def mapped(self, spec: JobSpec, plan: WorkerPlan, lines: Iterable[Line]) -> Iterator[Line]:
        """A map task's lines as they are, counted; the log says first whose they are."""
        self.begins(plan.worker)
        counts: dict[str, int] = {}
        for key, value in lines:
            _count(counts, "bytes", len(key) + len(value) + 2)
            if key.endswith(METRICS):
                _, record = decode_record(value)
                _count_record(counts, spec, record)
            yield key, value
        self.counted(counts)

    def begins(self, worker: int) -> None:
        """Say in the log whose work begins: what it says next is about that."""
        self._job.stderr.write(f"nnjobs: worker {worker} on {platform.node()}\n".encode())
        self._job.stderr.flush()

    def counted(self, counts: dict[str, int]) -> None:
        """Add to the job's counters."""
        for name, amount in counts.items():
            self._job.increment_counter(GROUP, name, amount)

    def reduced(self, key: bytes, values: Iterable[bytes], reduce: Callable[[], Iterable[Line]]) -> Iterator[Line]:
        """The lines of ``reduce``, counted; those about nodes pass as they are."""
        if key == NODE_KEY:
            yield from ((key, value) for value in values)
            return
        counts: dict[str, int] = {}
        for key, value in reduce():
            if key.endswith(DRIFT):
                _count(counts, "milliseconds average", round(1000 * decode_record(value)[1]["seconds"]))
            yield key, value
        self.counted(counts)


def _count(counts: dict[str, int], name: str, amount: int) -> None:
    counts[name] = counts.get(name, 0) + amount


def _count_record(counts: dict[str, int], spec: JobSpec, record: dict[str, Any]) -> None:
    """What a trial's metrics say of the work: examples times epochs, batches, time by phase."""
    for phase, seconds in record.get("seconds", {}).items():
        _count(counts, f"milliseconds {phase}", round(1000 * seconds))
    if "examples" in record:
        passes = record.get("evaluations") or len(record["losses"])
        batches = 1 if record.get("evaluations") else -(-record["examples"] // spec.config.train.batch_size)
        _count(counts, "examples", record["examples"] * passes)
        _count(counts, "batches", batches * passes)


def status(doing: dict[str, Any]) -> str:
    """What a task does now, in words: "train: round 3 epoch 7 loss 0.123"."""
    facts = [f"{name} {_shown(doing[name])}" for name in ("trial", "round", "epoch", "loss") if name in doing]
    return f"{doing.get('phase', 'reading')}: {' '.join(facts)}".rstrip(": ")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def node_line(worker: int) -> Line:
    """What this task's node is like, for the driver: names, versions, cores, free memory, numerics."""
    import numpy
    import pyarrow

    facts = {
        "host": platform.node(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
        "cores": os.cpu_count(),
        "free_mb": free_memory_mb(),
        "numerics": numerics.fingerprint(),
        "started": round(time.time(), 3),
        "executable": sys.executable,
    }
    return NODE_KEY, encode_record(worker, facts)


def free_memory_mb() -> int | None:
    """Memory that a new program could take on this machine; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123  (a file of the kernel's)
            found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        return None
    return int(found[0]) // 1024 if found else None
