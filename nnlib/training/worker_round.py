"""A worker's part of one round: score the model it starts from, then train it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from nnlib.config.schema import Config
from nnlib.core.errors import DivergedError, MismatchError
from nnlib.core.layout import ModelState
from nnlib.core.metrics import METRICS
from nnlib.data.decoded_cache import decoded_cache
from nnlib.data.shard_cache import shard_cache
from nnlib.data.split.rule import TEST, VALIDATION
from nnlib.data.worker_data import WorkerData
from nnlib.run.spec import JobSpec, WorkerPlan
from nnlib.storage.traffic import PROCESS
from nnlib.training.local_result import LocalResult
from nnlib.training.scores import Score, new_score
from nnlib.training.worker_record import TrainingRecord, WorkerRecord
from nnlib.training.worker_trial import WorkerTrial

SCORED = ("test", "validation")
"""The parts of the rows that are scored."""


def worker_data(spec: JobSpec, plan: WorkerPlan) -> WorkerData:
    """Open a worker's rows: its shards, or all of them if the streams are shared, to train on; its shards to score."""
    shared = spec.config.sampling.streams == "shared"
    train = tuple(range(len(spec.dataset.shards))) if shared else plan.shards
    return WorkerData(
        spec.dataset,
        train,
        plan.shards,
        memory_bytes=spec.config.runtime.memory_mb << 20,
        extra_columns=spec.extra_columns,
        cache=shard_cache(spec.config.runtime),
        decoded=decoded_cache(spec.config.runtime),
    )


def local_round(
    work: WorkerTrial, model: ModelState, train: Callable[[], LocalResult]
) -> tuple[WorkerRecord, LocalResult | None]:
    """Take a worker's part in a round: score the model it starts from, then train it by ``train``.

    Returns the record that the other workers get, and the result; None where training diverged.
    """
    started = time.perf_counter()
    record = score_record(work, model, detailed_parts(work.config))
    scored = time.perf_counter()
    result = None
    try:
        result = train()
    except DivergedError as error:
        record = replace(record, diverged=error)
    else:
        record = replace(record, training=training_record(result))
    seconds = {"score": scored - started, "train": time.perf_counter() - scored}
    return replace(record, seconds=seconds, requests=PROCESS.take_priced()), result


def training_record(result: LocalResult) -> TrainingRecord:
    """Make the part of a worker's record that is about its training."""
    return TrainingRecord(tuple(result.losses), result.rows, result.evaluations)


def detailed_parts(config: Config) -> tuple[str, ...]:
    """Name the parts of the rows that every round scores in detail: those that early stopping watches, if it does so
    by a metric that needs it."""
    stop = config.train.stop
    return ("validation",) if stop is not None and METRICS[stop.metric].detailed else ()


def score_record(work: WorkerTrial, model: ModelState, detailed: Sequence[str] = SCORED) -> WorkerRecord:
    """Score a model on this worker's test and validation rows; in detail on those parts that ``detailed`` names.

    The model's vector begins with the weights. Raises `MismatchError` where the rows are not as many as planned.
    """
    spec, trial, learner, scores = work.spec, work.trial, work.learner, dict[str, Score]()
    learner.load(model)
    for name, part, rows in (("test", TEST, trial.test_rows), ("validation", VALIDATION, trial.validation_rows)):
        expected = rows[work.worker]
        score = new_score(spec.dataset.task, len(spec.dataset.classes), detailed=name in detailed, rows=sum(rows))
        if expected:
            for batch in work.rows.score_batches(part):
                learner.score(batch, score)
        if score.rows != expected:
            raise MismatchError(
                f"found {score.rows} {name} rows, the plan says {expected}: the dataset changed during the run",
                worker=work.worker,
                split=trial.split,
            )
        scores[name] = score
    return WorkerRecord(learner.numerics(), scores["test"], scores["validation"], host=platform.node())
