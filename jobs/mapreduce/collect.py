"""Sorts a job's output lines by trial and joins averaged slices, or raises what its tasks reported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jobs.mapreduce import tasks
from jobs.mapreduce.wire import SliceKey, decode_partial
from jobs.runners.lines import ERROR_KEY, Line, decode_record
from nnlib.core.errors import JobError, from_record
from nnlib.core.layout import LayoutSlice, ModelState
from nnlib.data.scaling import FeatureStats
from nnlib.run.spec import JobSpec, arrays_from_json
from nnlib.training.round_result import TrialOutput
from nnlib.training.worker_record import WorkerRecord


def collect(spec: JobSpec, lines: Iterable[Line], active: Sequence[int]) -> dict[int, TrialOutput]:
    """Sort a job's lines, in any order, by trial. Raises the first (by worker) of the errors that tasks recorded."""
    outputs = {index: TrialOutput() for index in active}
    errors: list[tuple[int, dict[str, Any]]] = []
    for key, value in lines:
        if key == ERROR_KEY:
            errors.append(decode_record(value))
            continue
        name, kind = _split_key(key)
        if name.trial not in outputs:
            raise JobError(f"a line of trial {name.trial}, which is not in this job")
        output = outputs[name.trial]
        if kind == b"":
            if name.index in output.parts:
                raise JobError(f"slice {name.index} came twice", trial=name.trial)
            output.parts[name.index] = decode_partial(key, value)
            continue
        worker, record = decode_record(value)
        if kind == tasks.METRICS:
            output.records[worker] = WorkerRecord.from_json(record, spec.dataset.task, len(spec.dataset.classes))
        elif kind == tasks.DRIFT:
            output.drift_blocks[name.index] = {int(worker): rows for worker, rows in record["blocks"].items()}
            output.average_seconds += record["seconds"]
        elif kind == tasks.STATS:
            output.stats[name.index] = FeatureStats.from_arrays(arrays_from_json(record))
    if errors:
        errors.sort(key=lambda pair: pair[0])
        error = from_record(errors[0][1])
        others = sum(record["message"] != error.message for _, record in errors)
        if others:
            error.message += f" (and {others} more errors)"
        raise error
    for output in outputs.values():
        output.join_drift()
    return outputs


def _split_key(key: bytes) -> tuple[SliceKey, bytes]:
    for kind in (tasks.METRICS, tasks.DRIFT, tasks.STATS, tasks.MISSING):
        if key.endswith(kind):
            return SliceKey.decode(key.removesuffix(kind)), kind
    return SliceKey.decode(key), b""


def assemble(trial: int, output: TrialOutput, parts: Sequence[LayoutSlice]) -> ModelState:
    """Join a trial's averaged slices to the whole average; ``parts`` are all slices of the trial's layout.

    Raises `JobError` unless each slice is there, and made from as many examples as the workers reported.
    """
    examples = sum(record.training.examples for record in output.records.values() if record.training is not None)
    missing = [index for index in range(len(parts)) if index not in output.parts]
    if missing:
        raise JobError(f"slice {', '.join(map(str, missing))} of {len(parts)} is missing", trial=trial)
    for index, (_, part) in enumerate(parts):
        partial = output.parts[index]
        if partial.weights.size != part.stop - part.start or partial.examples != examples:
            raise JobError(
                f"slice {index} has {partial.weights.size} elements of {partial.examples} examples, expected "
                f"{part.stop - part.start} of {examples}",
                trial=trial,
            )
    vectors = [
        np.concatenate([output.parts[index].weights for index, part in enumerate(parts) if part.segment == segment])
        for segment in range(parts[-1].segment + 1)
    ]
    return ModelState(vectors[0], tuple(vectors[1:]))
