"""What a map task and a reduce task of a round do, as functions from a spec to lines.

Nothing here knows which runner calls it. A map task scores the incoming models on its held-out rows, trains every
active trial on its shards, and emits each partial in slices; a reduce task averages the partials of a slice in worker
order. Errors that a retry cannot mend leave as records, not as exceptions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlib import numerics
from nnlib.averaging import Average, Partial, block_drift
from nnlib.data.cache import shard_cache
from nnlib.data.scaling import FeatureStats
from nnlib.data.splits import TEST, VALIDATION
from nnlib.data.worker_data import SCORE_ROWS, TrialData, WorkerData
from nnlib.errors import DivergedError, MismatchError, NnjobsError
from nnlib.layout import BLOCK, blocks, slices
from nnlib.metrics import exact_sum, new_score
from nnlib.models.protocol import Model
from nnlib.plan import JobSpec, Trial, WorkerPlan, arrays_from_json, arrays_to_json
from nnlib.training import LocalResult, RoundStart, local_training, partial_layout
from nnlib.wire import ERROR_KEY, SliceKey, decode_partial, encode_partial, encode_record

Line = tuple[bytes, bytes]
Vector = npt.NDArray[Any]
Models = Mapping[int, Vector]
"""Trial index -> the vector it enters the round with (weights, then averaged optimizer state)."""

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


def worker_data(spec: JobSpec, plan: WorkerPlan) -> WorkerData:
    """The worker's rows: its own shards to train on, or all of them if the streams are shared; its own to score."""
    shared = spec.config.sampling.streams == "shared"
    train = tuple(range(len(spec.dataset.shards))) if shared else plan.shards
    return WorkerData(
        spec.dataset,
        train,
        plan.shards,
        memory_bytes=spec.config.runtime.memory_mb << 20,
        extra_columns=spec.extra_columns,
        cache=shard_cache(spec.config.runtime),
    )


def _train(
    spec: JobSpec, plan: WorkerPlan, round_: int, epochs: range, active: Sequence[int], models: Models
) -> Iterator[Line]:
    """Score the incoming models, train them, emit partials and metrics."""
    started = time.perf_counter()  # of the first trial's reading: the rows are read once for all of them
    with worker_data(spec, plan) as data:
        for index in active:
            trial = spec.trials[index]
            view = data.trial(trial.rule, trial.scaler, spec.settings(trial).model.dtype)
            read = time.perf_counter() - started
            training = local_training(spec, trial, plan.worker, view, RoundStart(models[index], round_, epochs))
            record, result = local_round(spec, trial, plan.worker, view, models[index], training.__next__)
            record["seconds"]["read"] = read
            if result is not None:
                for part_index, part in enumerate(slices(result.partial.weights.size, slice_elements(spec))):
                    key = SliceKey(index, part_index).encode()
                    piece = Partial(plan.worker, result.rows, result.partial.weights[part], result.partial.fingerprint)
                    delta = result.delta
                    cut = None if delta is None else (delta.precision, delta.cut(part))
                    yield key, encode_partial(key, piece, cut)
            yield metrics_line(plan.worker, index, record)
            started = time.perf_counter()


def local_round(
    spec: JobSpec, trial: Trial, worker: int, view: TrialData, vector: Vector, train: Callable[[], LocalResult]
) -> tuple[dict[str, Any], LocalResult | None]:
    """What a worker does in a round: score the model it starts from, then train. Returns the record that the others get
    to know, and the result unless training diverged."""
    started = time.perf_counter()
    record = score_record(spec, trial, worker, view, vector)
    scored = time.perf_counter()
    result = None
    try:
        result = train()
    except DivergedError as error:
        record["diverged"] = error.to_record()
    else:
        record |= result_record(result)
    record["seconds"] = {"score": scored - started, "train": time.perf_counter() - scored}
    return record, result


def result_record(result: LocalResult) -> dict[str, Any]:
    """What the others get to know of a worker's training."""
    return {"losses": list(result.losses), "examples": result.rows, "evaluations": result.evaluations}


def _score(spec: JobSpec, plan: WorkerPlan, active: Sequence[int], models: Models) -> Iterator[Line]:
    """A job of 0 epochs: score the given models."""
    with worker_data(spec, plan) as data:
        for index in active:
            trial = spec.trials[index]
            view = data.trial(trial.rule, trial.scaler, spec.settings(trial).model.dtype)
            yield metrics_line(plan.worker, index, score_record(spec, trial, plan.worker, view, models[index]))


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
    ) as data:
        for index in active:
            for shard in plan.shards:
                stats = data.feature_stats(spec.trials[index].rule, shard)
                key = SliceKey(index, shard).encode() + STATS
                yield key, encode_record(plan.worker, arrays_to_json(stats.to_arrays()))


UNTRAINED = {"score": _score, "scale": _scale}
"""The phases of jobs that train nothing."""


def score_record(spec: JobSpec, trial: Trial, worker: int, view: TrialData, vector: Vector) -> dict[str, Any]:
    """Scores of a model on this worker's test and validation rows, and this process's numerics."""
    model = spec.model(trial)
    record: dict[str, Any] = {"numerics": numerics.fingerprint()}
    for name, part, expected in (
        ("test", TEST, trial.test_rows[worker]),
        ("validation", VALIDATION, trial.validation_rows[worker]),
    ):
        score = new_score(spec.dataset.task, len(spec.dataset.classes))
        if expected:
            bound = model.bind(vector[: model.layout.size], None, min(SCORE_ROWS, expected))
            with np.errstate(all="ignore"):  # a model that diverges scores NaN
                for batch in view.score(part):
                    score.add(*bound.score(batch.x, batch.y), batch.y)
        if score.rows != expected:
            raise MismatchError(
                f"found {score.rows} {name} rows, the plan says {expected}: the dataset changed during the run",
                worker=worker,
                split=trial.split,
            )
        record[name] = score.to_json()
    return record


def metrics_line(worker: int, trial: int, record: dict[str, Any]) -> Line:
    return SliceKey(trial, 0).encode() + METRICS, encode_record(worker, record)


def reduce_task(spec: JobSpec, key: bytes, values: Iterable[bytes], models: Models) -> Iterator[Line]:
    """All lines of one key: partials of a slice become their average, records pass as they are."""
    if key == ERROR_KEY or key.endswith((METRICS, STATS)):
        for value in values:
            yield key, value
        return
    try:
        yield from _average(spec, key, values, models)
    except NnjobsError as error:
        error.where.setdefault("slice", key.decode("ascii", "backslashreplace"))
        yield ERROR_KEY, encode_record(0, error.to_record())


def _average(spec: JobSpec, key: bytes, values: Iterable[bytes], models: Models) -> Iterator[Line]:
    """The average of a slice and each worker's drift from it; a slice that lacks a worker says so."""
    started = time.perf_counter()
    name = SliceKey.decode(key)
    if name.trial not in models:
        raise MismatchError(f"trial {name.trial} is not in this job")
    trial = spec.trials[name.trial]
    model, layout = spec.model(trial), partial_layout(spec, trial)
    parts = slices(layout.size, slice_elements(spec))
    if name.index >= len(parts):
        raise MismatchError(f"slice {name.index} of {len(parts)}")
    part = parts[name.index]
    average = Average(range(spec.workers), layout.fingerprint, spec.settings(trial).sync.weighting)
    partials = []
    for value in values:
        partial = decode_partial(key, value, models[name.trial][part])
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
        average = Average([partial.worker for partial in partials], layout.fingerprint, average.weighting)
        for partial in partials:
            average.add(partial)
    mean = average.finish()
    yield key, encode_partial(key, Partial(0, average.examples, mean, layout.fingerprint))
    drift = _drift(partials, mean, models[name.trial][part], part.start, model)
    yield key + DRIFT, encode_record(0, {**drift, "seconds": time.perf_counter() - started})


def _drift(partials: list[Partial], mean: Vector, start: Vector, offset: int, model: Model) -> dict[str, Any]:
    """Per worker and block: the sums of `nnlib.averaging.Drift`, over the model's parameters only."""
    end = max(0, min(mean.size, model.layout.size - offset))
    rows = {str(partial.worker): drift_rows(partial.weights[:end], mean[:end], start[:end]) for partial in partials}
    return {"blocks": rows, "examples": {str(partial.worker): partial.examples for partial in partials}}


def drift_rows(weights: Vector, mean: Vector, start: Vector) -> list[list[float]]:
    """The sums of `nnlib.averaging.Drift` for each block of vectors that begin on the edge of one."""
    rows = []
    for cut in blocks(mean.size) if mean.size else ():
        drift = block_drift(weights[cut], mean[cut], start[cut])
        rows.append([drift.distance, drift.step, drift.mean_step, drift.dot, drift.norm])
    return rows


def drift_summary(blocks: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """A worker's drift over all blocks, in any order: distance from the average relative to the average's norm, and
    the cosine between its step and the average's step. None where one is not defined, or too large for float64 (before
    a float64 model diverges, its squares do)."""
    distance, step, mean_step, dot, norm = (exact_sum(column) for column in zip(*blocks, strict=True))
    relative = math.sqrt(distance / norm) if norm > 0.0 else math.nan
    lengths = math.sqrt(step) * math.sqrt(mean_step)  # the product of the squares could vanish
    cosine = dot / lengths if lengths > 0.0 else math.nan
    return {
        "relative": relative if math.isfinite(relative) else None,
        "cosine": cosine if math.isfinite(cosine) and math.isfinite(lengths) else None,
    }


def merge_stats(records: Mapping[int, dict[str, Any]]) -> FeatureStats:
    """The statistics of all shards, merged in shard order."""
    return FeatureStats.merged(FeatureStats.from_arrays(arrays_from_json(records[shard])) for shard in sorted(records))
