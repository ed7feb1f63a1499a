"""A worker's share of one round: score the model it starts from, then train it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nnlib.core import numerics
from nnlib.core.arrays import Vector
from nnlib.core.errors import DivergedError, MismatchError
from nnlib.data.batches import SCORE_ROWS
from nnlib.data.shard_cache import shard_cache
from nnlib.data.split.rule import TEST, VALIDATION
from nnlib.data.worker_data import TrialData, WorkerData
from nnlib.run.spec import JobSpec, Trial, WorkerPlan
from nnlib.training.learner import LocalResult
from nnlib.training.scores import Score, new_score
from nnlib.training.worker_record import TrainingRecord, WorkerRecord


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


def local_round(
    spec: JobSpec, trial: Trial, worker: int, view: TrialData, vector: Vector, train: Callable[[], LocalResult]
) -> tuple[WorkerRecord, LocalResult | None]:
    """Score the model that a worker starts a round from, then train it. Returns the worker's record of the round, and
    the result unless training diverged."""
    started = time.perf_counter()
    record = score_record(spec, trial, worker, view, vector)
    scored = time.perf_counter()
    result = None
    try:
        result = train()
    except DivergedError as error:
        record = replace(record, diverged=error)
    else:
        record = replace(record, training=training_record(result))
    return replace(record, seconds={"score": scored - started, "train": time.perf_counter() - scored}), result


def training_record(result: LocalResult) -> TrainingRecord:
    """Record what a worker's training is to be known by."""
    return TrainingRecord(tuple(result.losses), result.rows, result.evaluations)


def score_record(spec: JobSpec, trial: Trial, worker: int, view: TrialData, vector: Vector) -> WorkerRecord:
    """Score a model on this worker's test and validation rows. Raises `MismatchError` where the rows are not as many as
    planned."""
    model, scores = spec.model(trial), dict[str, Score]()
    for name, part, expected in (
        ("test", TEST, trial.test_rows[worker]),
        ("validation", VALIDATION, trial.validation_rows[worker]),
    ):
        score = new_score(spec.dataset.task, len(spec.dataset.classes))
        if expected:
            bound = model.bind(vector[: model.layout.size], None, min(SCORE_ROWS, expected))
            with np.errstate(all="ignore"):  # a model that diverges scores NaN
                for batch in view.score_batches(part):
                    score.add(*bound.score(batch.x, batch.y), batch.y)
        if score.rows != expected:
            raise MismatchError(
                f"found {score.rows} {name} rows, the plan says {expected}: the dataset changed during the run",
                worker=worker,
                split=trial.split,
            )
        scores[name] = score
    return WorkerRecord(numerics.fingerprint(), scores["test"], scores["validation"])
