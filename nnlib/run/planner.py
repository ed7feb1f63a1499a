"""Before the first round: from a configuration and a dataset to the plan of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nnlib.config.code_files import read_sources
from nnlib.config.schema import Config
from nnlib.config.sweep import combinations
from nnlib.core.errors import ConfigError
from nnlib.core.machine import memory_bytes
from nnlib.core.metrics import metrics_of
from nnlib.data.augmentation import check_augmentation
from nnlib.data.dataset import Dataset
from nnlib.data.importing.text.text_options import DOCUMENT
from nnlib.data.sampling import sample_size
from nnlib.data.shard_cache import shard_cache
from nnlib.data.shard_reader import label_chunks
from nnlib.data.spelling import UNKNOWN, NameIndex
from nnlib.data.split.counts import SplitCounts, count_parts
from nnlib.data.split.fitting import fit_split_rules
from nnlib.data.target_scaling import TargetScaler, fit_target_scalers
from nnlib.models import output_of
from nnlib.models.training_losses import training_loss
from nnlib.run.spec import JobSpec, Trial, WorkerPlan, assign_shards
from nnlib.run.subnet_checks import check_subnets


def make_spec(
    config: Config, dataset: Dataset, sources: Mapping[str, str] | None = None
) -> tuple[JobSpec, list[WorkerPlan]]:
    """The job spec (scaling not yet fitted) and a line of the plan per worker.

    Reads the labels of the dataset three times (two to find the splits, one to count), a fourth time to scale targets;
    never its features. ``data.target_scale: auto`` and ``split.group`` become what they mean for the dataset.
    ``sources`` are the texts of the model's code; None: they are read from ``model.files``. Raises `ConfigError` where
    a worker would have nothing to train on.
    """
    config = with_document_groups(with_target_scale(config, dataset), dataset)
    plans = assign_shards([shard.rows for shard in dataset.shards], config.workers)
    classes = len(dataset.classes) if dataset.task == "classification" else None
    columns = tuple(name for name in (config.split.column, config.split.group) if name is not None)
    for name in columns:
        if name not in dataset.columns:
            kept = ", ".join(dataset.columns) or "none"
            raise ConfigError(
                f"the dataset has no kept column {name!r} (kept: {kept})",
                hint=f"import it again with --keep {name}",
                key="split.column" if name == config.split.column else "split.group",
            )

    labels = label_chunks(dataset, columns, shard_cache(config.runtime))
    keys = [(seed, fold) for seed in config.split.seeds for fold in range(max(config.split.folds, 1))]
    rules = fit_split_rules(labels, config.split, keys, seed=config.seed, classes=classes, folds=config.split.folds)
    counts = count_parts(labels, rules, shards=len(dataset.shards), classes=classes)
    targets: dict[str, list[TargetScaler | None]] = {"none": [None] * len(rules)}
    trials: list[Trial] = []
    for overrides in combinations(config.sweep):
        settings = config.with_overrides(overrides)
        kind = _target_scaling(settings, dataset)
        if kind not in targets:
            targets[kind] = list(fit_target_scalers(labels, rules))
        for (seed, fold), rule, count, target in zip(keys, rules, counts, targets[kind], strict=True):
            rows = _train_rows(settings, plans, count, seed)
            samples = [sample_size(number, settings.sampling.fraction) for number in rows]
            shared = settings.sampling.streams == "shared"
            trials.append(
                Trial(
                    index=len(trials),
                    split=seed,
                    fold=fold,
                    overrides=overrides,
                    rule=rule,
                    objective_rows=samples[0] if shared else sum(samples),
                    train_rows=tuple(rows),
                    validation_rows=tuple(_per_worker(plans, count.validation)),
                    test_rows=tuple(_per_worker(plans, count.test)),
                    class_weights=_class_weights(settings, dataset, count),
                    target=target,
                )
            )
    spec = JobSpec(config, dataset, tuple(trials), read_sources(config) if sources is None else sources)
    _check_loss(spec)
    _check_stop(spec)
    _check_augmentation(spec)
    check_subnets(spec)
    _check_memory(spec)
    return spec, plans


def with_target_scale(config: Config, dataset: Dataset) -> Config:
    """Return the configuration with ``data.target_scale: auto`` replaced by what it means for the dataset.

    Raises `ConfigError` for a scaling of classes.
    """
    kind = _target_scaling(config, dataset)
    return config.model_copy(update={"data": config.data.model_copy(update={"target_scale": kind})})


def with_document_groups(config: Config, dataset: Dataset) -> Config:
    """Return the configuration with ``split.group: document`` for a dataset of blocks of tokens, so that no document is
    trained on and tested; where ``split`` says itself which rows stay together, or a column does, it stays as it is."""
    split = config.split
    if dataset.task != "language" or split.group is not None or split.column is not None:
        return config
    return config.model_copy(update={"split": split.model_copy(update={"group": DOCUMENT})})


def _target_scaling(config: Config, dataset: Dataset) -> Literal["none", "standard"]:
    kind = config.data.target_scaling(dataset.task)
    if kind == "standard" and dataset.task == "classification":
        raise ConfigError(
            "the targets are classes: only numbers can be scaled", hint="auto or none", key="data.target_scale"
        )
    return kind


def _check_loss(spec: JobSpec) -> None:
    """Refuse losses of training that do not fit the dataset's task."""
    for trial in spec.trials:
        settings = spec.settings(trial)
        training_loss(settings.train, output_of(settings.model, spec.dataset.task))


def _check_stop(spec: JobSpec) -> None:
    """Refuse to stop by a metric that the dataset cannot have."""
    stop, dataset = spec.config.train.stop, spec.dataset
    if stop is None:
        return
    names = [name for name in metrics_of(dataset.task) if name != "top_5_accuracy" or len(dataset.classes) > 5]
    if stop.metric not in names:
        why = "with five classes or fewer" if stop.metric in metrics_of(dataset.task) else f"for {dataset.task}"
        raise ConfigError(
            f"there is no {stop.metric} {why}", hint=f"one of {', '.join(names)}", key="train.stop.metric"
        )


def _check_augmentation(spec: JobSpec) -> None:
    """Refuse to change rows as images that are none."""
    for trial in spec.trials:
        if (options := spec.settings(trial).data.augment) is not None:
            check_augmentation(options, spec.dataset.shape)


def _check_memory(spec: JobSpec) -> None:
    """Refuse models that cannot fit, before one of them fills the machine's memory.

    The driver holds all trials' weights and their encoding for the next job; a task holds a model, its gradient, the
    text of its result, and the average in float64.
    """
    layouts = [spec.model(trial).layout for trial in spec.trials]
    largest = max(layouts, key=lambda layout: layout.size)
    total = sum(layout.size * layout.itemsize for layout in layouts)
    needed = 2 * total + largest.size * (3 * largest.itemsize + 8)
    if needed > (memory := memory_bytes() or math.inf):
        raise ConfigError(
            f"a model of {largest.size:,} parameters, {len(layouts)} of them, needs at least {needed / 1e9:,.1f} GB, "
            f"this machine has {memory / 1e9:,.1f}",
            hint="make the layers smaller, or train fewer splits in one run",
            key="model.hidden",
        )


def _per_worker(plans: Sequence[WorkerPlan], per_shard: Any) -> list[int]:
    return [int(sum(per_shard[shard] for shard in plan.shards)) for plan in plans]


def _train_rows(config: Config, plans: Sequence[WorkerPlan], count: SplitCounts, split: int) -> list[int]:
    """Rows each worker trains on; none may be without."""
    if config.sampling.streams == "shared":
        rows = [int(count.train.sum())] * len(plans)
    else:
        rows = _per_worker(plans, count.train)
    for plan, number in zip(plans, rows, strict=True):
        if number == 0:
            raise ConfigError(
                f"split {split} leaves worker {plan.worker} without training rows",
                hint="raise split.train, use fewer workers, or import the data again (not --by-label)",
                key="split.train",
            )
    return rows


def _class_weights(config: Config, dataset: Dataset, count: SplitCounts) -> tuple[float, ...] | None:
    """A weight per class: ``balanced`` is rows / (classes * rows of the class) over the training rows, so that their
    mean over the training rows is 1; named weights default to 1."""
    wanted = config.train.class_weights
    if wanted == "none":
        return None
    if dataset.task != "classification":
        raise ConfigError("a numeric target has no classes", key="train.class_weights")
    if isinstance(wanted, dict):
        index = NameIndex({name: number for number, name in enumerate(dataset.classes)})
        numbers = {name: index.find(name) for name in wanted}
        unknown = [name for name, number in numbers.items() if number == UNKNOWN]
        if unknown:
            raise ConfigError(
                f"no class named {', '.join(unknown)}; the classes are {', '.join(dataset.classes[:20])}",
                key="train.class_weights",
            )
        if len(set(numbers.values())) < len(numbers):
            raise ConfigError(f"names a class twice: {', '.join(numbers)}", key="train.class_weights")
        named = {numbers[name]: weight for name, weight in wanted.items()}
        return tuple(float(named.get(number, 1.0)) for number in range(len(dataset.classes)))
    assert count.train_classes is not None
    rows = count.train_classes.sum(axis=0).astype(np.float64)
    present = np.count_nonzero(rows)
    weights = np.divide(rows.sum(), present * rows, out=np.zeros_like(rows), where=rows > 0)
    return tuple(weights.tolist())
