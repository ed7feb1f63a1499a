"""Counts the work of a round's tasks: examples, batches, bytes, milliseconds by phase.

On Hadoop the counts are added to the job's counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jobs.mapreduce.tasks import DRIFT, METRICS
from jobs.runners.lines import Line, decode_record
from jobs.runners.node_check import NODE_KEY
from jobs.runners.streaming_reporter import Reporter
from nnlib.run.spec import JobSpec, WorkerPlan


def count_mapped(reporter: Reporter, spec: JobSpec, plan: WorkerPlan, lines: Iterable[Line]) -> Iterator[Line]:
    """Yield a map task's lines as they are, and report what they say of its work; the log names the worker first."""
    reporter.begin(plan.worker)
    counts: dict[str, int] = {}
    for key, value in lines:
        _add(counts, "bytes", len(key) + len(value) + 2)
        if key.endswith(METRICS):
            _, record = decode_record(value)
            _add_record(counts, spec, record)
        yield key, value
    reporter.count(counts)


def count_reduced(
    reporter: Reporter, key: bytes, values: Iterable[bytes], reduce: Callable[[], Iterable[Line]]
) -> Iterator[Line]:
    """Yield the lines of ``reduce`` as they are, and report how long it took; lines about nodes pass unreduced."""
    if key == NODE_KEY:
        yield from ((key, value) for value in values)
        return
    counts: dict[str, int] = {}
    for key, value in reduce():
        if key.endswith(DRIFT):
            _add(counts, "milliseconds average", round(1000 * decode_record(value)[1]["seconds"]))
        yield key, value
    reporter.count(counts)


def _add(counts: dict[str, int], name: str, amount: int) -> None:
    counts[name] = counts.get(name, 0) + amount


def _add_record(counts: dict[str, int], spec: JobSpec, record: dict[str, Any]) -> None:
    """Add what a trial's metrics say of the work: examples times epochs, batches, time by phase."""
    for phase, seconds in record.get("seconds", {}).items():
        _add(counts, f"milliseconds {phase}", round(1000 * seconds))
    if "examples" in record:
        passes = record.get("evaluations") or len(record["losses"])
        batches = 1 if record.get("evaluations") else -(-record["examples"] // spec.config.train.batch_size)
        _add(counts, "examples", record["examples"] * passes)
        _add(counts, "batches", batches * passes)
