"""What a map task and a reduce task of a round do, as functions from a spec to lines.

Nothing here knows which runner calls it. A map task scores the incoming models on its held-out rows, trains every
active trial on its shards, and emits each partial in slices; a reduce task averages the partials of a slice in worker
order. Errors that a retry cannot mend leave as records, not as exceptions.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jobs.mapreduce.wire import SliceKey, decode_partial, encode_partial
from jobs.runners.lines import ERROR_KEY, Line, encode_record
from nnlib.aggregation.average import Average, Partial
from nnlib.aggregation.drift import drift_rows
from nnlib.aggregation.masked_average import MaskedAverage
from nnlib.core.arrays import BoolArray, Vector
from nnlib.core.errors import MismatchError, NnjobsError
from nnlib.core.layout import BLOCK, ModelState
from nnlib.data.decoded_cache import decoded_cache
from nnlib.data.shard_cache import shard_cache
from nnlib.data.worker_data import WorkerData
from nnlib.run.spec import JobSpec, Trial, WorkerPlan, arrays_to_json, partial_layout
from nnlib.training.local_result import LocalResult, RoundStart
from nnlib.training.local_training import local_training
from nnlib.training.subnet_learner import has_subnets, numbers_held
from nnlib.training.worker_record import WorkerRecord
from nnlib.training.worker_round import local_round, score_record, worker_data
from nnlib.training.worker_trial import WorkerTrial

Models = Mapping[int, ModelState]
"""Trial index -> what it enters the round with: weights, then averaged optimizer state; and buffers."""

METRICS = b".metrics"
DRIFT = b".drift"
MISSING = b".missing"
STATS = b".stats"
REDUCER_BYTES = 64 << 20
"""Partials of one slice that a reducer holds at once; slices shrink (to one block at least) to stay below."""


def slice_elements(spec: JobSpec) -> int:
    """Elements of a slice: as configured, or fewer where many workers would fill a reducer's memory."""
    bound = REDUCER_BYTES // (8 * spec.workers)
    return max(BLOCK, min(spec.config.sync.slice_elements, bound))


def map_task(
    spec: JobSpec,
    plan: WorkerPlan,
    phase: str,
    round_: int,
    active: Sequence[int],
    models: Models,
    epochs: range,
) -> Iterator[Line]:
    """All lines of one map task, which trains ``epochs`` if its phase does; an error becomes one record that names the
    worker."""
    try:
        if phase == "train":
            yield from _train(spec, plan, round_, epochs, active, models)
        else:
            yield from UNTRAINED[phase](spec, plan, active, models)
    except NnjobsError as error:
        error.where.setdefault("worker", plan.worker)
        yield ERROR_KEY, encode_record(plan.worker, error.to_record())


def _train(
    spec: JobSpec, plan: WorkerPlan, round_: int, epochs: range, active: Sequence[int], models: Models
) -> Iterator[Line]:
    """Score the incoming models, train them, emit partials and metrics."""
    started = time.perf_counter()  # of the first trial's reading: the rows are read once for all of them
    with worker_data(spec, plan) as data:
        for index in active:
            work = WorkerTrial.of(spec, spec.trials[index], plan.worker, data)
            read = time.perf_counter() - started
            training = local_training(work, RoundStart(models[index], round_, epochs))
            record, result = local_round(work, models[index], training.__next__)
            record = replace(record, seconds={**record.seconds, "read": read})
            if result is not None:
                yield from _partial_lines(spec, work.trial, result)
            yield metrics_line(plan.worker, index, record)
            started = time.perf_counter()


def _partial_lines(spec: JobSpec, trial: Trial, result: LocalResult) -> Iterator[Line]:
    """A line for each slice of a worker's partial. Buffers travel exactly, whatever `sync.precision` is."""
    partial, delta = result.partial, result.delta
    vectors = (partial.weights, *result.buffers)
    for number, (segment, part) in enumerate(partial_layout(spec, trial).slices(slice_elements(spec))):
        key = SliceKey(trial.index, number).encode()
        piece = Partial(partial.worker, result.rows, vectors[segment][part], partial.fingerprint)
        cut = None if delta is None or segment else (delta.precision, delta.cut(part))
        yield key, encode_partial(key, piece, cut)


def _score(spec: JobSpec, plan: WorkerPlan, active: Sequence[int], models: Models) -> Iterator[Line]:
    """Score the models, in a job of 0 epochs."""
    with worker_data(spec, plan) as data:
        for index in active:
            work = WorkerTrial.of(spec, spec.trials[index], plan.worker, data)
            yield metrics_line(plan.worker, index, score_record(work, models[index]))


def _scale(spec: JobSpec, plan: WorkerPlan, active: Sequence[int], models: Models) -> Iterator[Line]:
    """Statistics of the features over the training rows, shard by shard (so they cannot depend on the workers)."""
    memory = spec.config.runtime.memory_mb << 20
    with WorkerData(
        spec.dataset,
        plan.shards,
        plan.shards,
        memory_bytes=memory,
        extra_columns=spec.extra_columns,
        cache=shard_cache(spec.config.runtime),
        decoded=decoded_cache(spec.config.runtime),
    ) as data:
        for index in active:
            for shard in plan.shards:
                stats = data.feature_stats(spec.trials[index].rule, shard)
                key = SliceKey(index, shard).encode() + STATS
                yield key, encode_record(plan.worker, arrays_to_json(stats.to_arrays()))


UNTRAINED = {"score": _score, "scale": _scale}
"""The phases of jobs that train nothing."""


def metrics_line(worker: int, trial: int, record: WorkerRecord) -> Line:
    """Encode a worker's record of a trial as a line."""
    return SliceKey(trial, 0).encode() + METRICS, encode_record(worker, record.to_json())


def reduce_task(
    spec: JobSpec, key: bytes, values: Iterable[bytes], models: Models, epochs: range = range(0)
) -> Iterator[Line]:
    """All lines of one key: partials of a slice become their average, records pass as they are. ``epochs`` are those
    that the job trained: they decide which sub-net a worker had."""
    if key == ERROR_KEY or key.endswith((METRICS, STATS)):
        for value in values:
            yield key, value
        return
    try:
        yield from _average(spec, key, values, models, epochs)
    except NnjobsError as error:
        error.where.setdefault("slice", key.decode("ascii", "backslashreplace"))
        yield ERROR_KEY, encode_record(0, error.to_record())


def _average(spec: JobSpec, key: bytes, values: Iterable[bytes], models: Models, epochs: range) -> Iterator[Line]:
    """The average of a slice and each worker's drift from it, or the names of workers that are missing."""
    started = time.perf_counter()
    name = SliceKey.decode(key)
    if name.trial not in models:
        raise MismatchError(f"trial {name.trial} is not in this job")
    trial = spec.trials[name.trial]
    model, layout = spec.model(trial), partial_layout(spec, trial)
    parts = layout.slices(slice_elements(spec))
    if name.index >= len(parts):
        raise MismatchError(f"slice {name.index} of {len(parts)}")
    number, part = parts[name.index]
    start = (models[name.trial].vector, *models[name.trial].buffers)[number][part]
    combine: Callable[..., Average] = functools.partial(
        MaskedAverage if has_subnets(spec.settings(trial)) else Average,
        fingerprint=layout.fingerprint,
        weighting=spec.settings(trial).sync.weighting,
        segment=layout.segments[number],
        offset=part.start,
    )
    held = _held(spec, trial, part, epochs)
    if held:
        combine = functools.partial(combine, start=start, held=held)
    average = combine(range(spec.workers))
    partials = []
    for value in values:
        partial = decode_partial(key, value, start)
        if partial.weights.size != part.stop - part.start:
            raise MismatchError(
                f"slice has {partial.weights.size} elements, expected {part.stop - part.start}", worker=partial.worker
            )
        average.add(partial)
        partials.append(partial)
    if average.missing:
        if len(partials) < spec.quorum:
            yield key + MISSING, encode_record(0, {"workers": average.missing})
            return
        average = combine([partial.worker for partial in partials])
        for partial in partials:
            average.add(partial)
    mean = average.finish()
    yield key, encode_partial(key, Partial(0, average.examples, mean, layout.fingerprint))
    parameters = 0 if number else max(0, min(mean.size, model.layout.size - part.start))
    if held:  # of numbers that a worker did not train it has not drifted
        partials = [
            replace(partial, weights=np.where(held[partial.worker], partial.weights, mean)) for partial in partials
        ]
    drift = _drift(partials, mean, start, parameters)
    yield key + DRIFT, encode_record(0, {**drift, "seconds": time.perf_counter() - started})


def _held(spec: JobSpec, trial: Trial, part: slice, epochs: range) -> dict[int, BoolArray]:
    """Which numbers of a range of the flat vector each worker trained, by worker; {} where all train all."""
    model, config = spec.model(trial), spec.settings(trial)
    if not has_subnets(config):
        return {}
    held = {}
    for worker in range(spec.workers):
        mask = numbers_held(model, config, worker, epochs.start)
        assert mask is not None
        held[worker] = mask[part]
    return held


def _drift(partials: list[Partial], mean: Vector, start: Vector, end: int) -> dict[str, Any]:
    """Per worker and block: the sums of `nnlib.aggregation.drift.Drift` over the slice's first ``end`` elements, which
    are parameters."""
    rows = {str(partial.worker): drift_rows(partial.weights[:end], mean[:end], start[:end]) for partial in partials}
    return {"blocks": rows, "examples": {str(partial.worker): partial.examples for partial in partials}}
