"""Counts the work of a round's tasks: examples, batches, bytes, milliseconds by phase.

On Hadoop the counts are added to the job's counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from jobs.mapreduce.tasks import DRIFT, METRICS
from jobs.runners.lines import Line, decode_record
from jobs.runners.node_check import NODE_KEY
from jobs.runners.streaming_reporter import Reporter
from nnlib.run.spec import JobSpec, WorkerPlan
from nnlib.training.worker_record import WorkerRecord


def count_mapped(reporter: Reporter, spec: JobSpec, plan: WorkerPlan, lines: Iterable[Line]) -> Iterator[Line]:
    """Yield a map task's lines as they are, and report what they say of its work; the log names the worker first."""
    reporter.begin(plan.worker)
    counts: dict[str, int] = {}
    for key, value in lines:
        _add(counts, "bytes", len(key) + len(value) + 2)
        if key.endswith(METRICS):
            _, record = decode_record(value)
            dataset = spec.dataset
            _add_record(counts, spec, WorkerRecord.from_json(record, dataset.task, len(dataset.classes)))
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


def _add_record(counts: dict[str, int], spec: JobSpec, record: WorkerRecord) -> None:
    """Add the work that a worker reports of a trial: examples times epochs, batches, time by phase."""
    for phase, seconds in record.seconds.items():
        _add(counts, f"milliseconds {phase}", round(1000 * seconds))
    if (training := record.training) is not None:
        batches = 1 if training.evaluations else -(-training.examples // spec.config.train.batch_size)
        _add(counts, "examples", training.examples * training.passes)
        _add(counts, "batches", batches * training.passes)
