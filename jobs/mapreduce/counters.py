"""Hadoop counters of a round: examples, batches, bytes, milliseconds by phase."""

from __future__ import annotations

from typing import Any

from nnlib.run.spec import JobSpec


def add_count(counts: dict[str, int], name: str, amount: int) -> None:
    counts[name] = counts.get(name, 0) + amount


def count_record(counts: dict[str, int], spec: JobSpec, record: dict[str, Any]) -> None:
    """What a trial's metrics say of the work: examples times epochs, batches, time by phase."""
    for phase, seconds in record.get("seconds", {}).items():
        add_count(counts, f"milliseconds {phase}", round(1000 * seconds))
    if "examples" in record:
        passes = record.get("evaluations") or len(record["losses"])
        batches = 1 if record.get("evaluations") else -(-record["examples"] // spec.config.train.batch_size)
        add_count(counts, "examples", record["examples"] * passes)
        add_count(counts, "batches", batches * passes)
