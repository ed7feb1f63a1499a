"""What a configuration may say: every key, its type, legal values and default, as data.

`nnlib.config.identity` lists the keys that never change the bits of a result: where it runs, where it is stored, how it
is cut. All others may. Sections that name a kind are in `nnlib.config.training`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from nnlib.config.earlier import missing_keys
from nnlib.config.kinds import OPTIMIZERS
from nnlib.config.rules import check_device, check_subnets, check_training
from nnlib.config.runtime import Evaluate, Hadoop, Runtime, Splitting, Tracking
from nnlib.config.section import Fraction, PositiveInt, Section, Seed, since
from nnlib.config.sweep import applied, combinations, sweepable
from nnlib.config.training import (
    AnyModel,
    AnyOuter,
    AnyTrain,
    Model,
    Outer,
    Schedule,
    Stop,
    Train,
    model_section,
    outer_section,
    train_section,
)

__all__ = [
    "Augment",
    "Checkpoint",
    "Config",
    "Data",
    "Evaluate",
    "Hadoop",
    "Model",
    "Outer",
    "Runtime",
    "Sampling",
    "Schedule",
    "Section",
    "Split",
    "Splitting",
    "Stop",
    "Sync",
    "Tracking",
    "Train",
    "stored_config",
]


Pixels = Annotated[int, Field(ge=0, le=10_000, strict=True)]


class Augment(Section):
    """How training rows are changed at random, each time they are used."""

    crop: Pixels = Field(
        0,
        description="images are moved by up to this many pixels each way; their mirror image comes in at the edges",
        json_schema_extra=since("0.2", before=0),
    )
    shift: Pixels = Field(
        0,
        description="likewise, but 0 comes in (black, or with scale: standard the mean)",
        json_schema_extra=since("0.2", before=0),
    )
    flip: bool = Field(
        False,
        description="every second image, by chance, is mirrored left to right",
        json_schema_extra=since("0.2", before=False),
    )
    noise: Annotated[float, Field(ge=0.0, le=1e6)] = Field(
        0.0,
        description="standard deviation of the normal noise added to every feature, after scaling",
        json_schema_extra=since("0.2", before=0.0),
    )

    @property
    def moves(self) -> bool:
        """Whether rows are moved or mirrored, which only images can be."""
        return bool(self.crop or self.shift or self.flip)

    @model_validator(mode="after")
    def _does_something(self) -> Augment:
        if not (self.moves or self.noise):
            raise ValueError("set one of crop, shift, flip and noise, or augment: null")
        return self


class Data(Section):
    """The dataset, and how its features and targets are scaled."""

    path: str = Field(description="dataset directory, made by `nnjobs data import`")
    scale: Literal["none", "standard", "minmax"] = Field(
        "none", description="feature scaling, fitted on training rows and stored with the model"
    )
    target_scale: Literal["auto", "none", "standard"] = Field(
        "auto",
        description="scaling of a regression's targets in training, fitted on training rows; scores and predictions "
        "stay in the target's own units; auto: standard for regression",
        json_schema_extra=since("0.2", before="none"),
    )
    augment: Augment | None = Field(
        None,
        description="change training rows at random, in another way every epoch; not for cg and lbfgs",
        json_schema_extra=since("0.2", before=None),
    )

    def target_scaling(self, task: str) -> Literal["none", "standard"]:
        """Return what ``target_scale`` means for a dataset of this task."""
        if self.target_scale == "auto":
            return "standard" if task == "regression" else "none"
        return self.target_scale


class Split(Section):
    """Which rows train, validate and test: by a seed, by folds, or by a column."""

    train: Fraction = Field(0.7, description="fraction of the rows to train on")
    validation: Fraction = Field(0.0, description="fraction for early stopping and for choosing the best round")
    test: Fraction | None = Field(None, description="fraction to score; default: all the rest")
    seeds: list[Seed] = Field([0], min_length=1, description="one trial per seed")
    folds: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="k-fold cross-validation: k trials per seed, each tested on its own k-th; 0: no folds"
    )
    train_range: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="the part of the training rows that is used, in their random order: [0, 0.5] is the first half; "
        "validation and test rows stay the same; default: all",
        json_schema_extra=since("0.2", before=None),
    )
    stratified: bool = Field(False, description="keep the class proportions in every part")
    column: str | None = Field(None, description="a kept column that says train, validation or test")
    group: str | None = Field(None, description="a kept column whose equal values stay together")

    @model_validator(mode="after")
    def _consistent(self) -> Split:
        rest = 1.0 - self.train - self.validation
        if rest < -1e-9:
            raise ValueError(f"train {self.train} + validation {self.validation} is more than 1")
        if self.test is not None and self.test > rest + 1e-9:
            raise ValueError(f"train + validation + test is {1.0 - rest + self.test:g}, more than 1")
        if self.train <= 0.0 and self.column is None:
            raise ValueError("train must be above 0: there would be nothing to train on")
        if self.train_range is not None and self.train_range[0] >= self.train_range[1]:
            raise ValueError(f"train_range {self.train_range} holds no rows: the first number must be the smaller one")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds has the same seed twice")
        if self.folds == 1:
            raise ValueError("folds must be 0 (none) or at least 2")
        if self.folds and (self.column is not None or self.test is not None):
            raise ValueError("folds decide the test rows: they exclude column and test")
        if self.group is not None and self.stratified:
            raise ValueError("group and stratified exclude each other")
        if self.column is not None and (self.group is not None or self.stratified):
            raise ValueError("column (an official split) excludes group and stratified")
        return self


class Sampling(Section):
    """Which training rows a worker draws, and in which order."""

    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="part of a worker's training rows drawn anew every round"
    )
    streams: Literal["independent", "shared"] = Field(
        "independent", description="independent: own shards, own draws; shared (the paper): all shards, the same draws"
    )
    window_rows: PositiveInt = Field(65_536, description="rows shuffled together; row groups are shuffled besides")


class Sync(Section):
    """How and when workers are combined into one model."""

    mode: Literal["rounds", "collective"] = Field(
        "rounds",
        description="rounds: one MapReduce job a round; collective: one job whose mappers average by all-reduce",
    )
    every: Literal["epochs", "batch"] = Field(
        "epochs",
        description="epochs: weights are averaged after epochs_per_round; batch (collective): gradients at every step",
    )
    weighting: Literal["examples", "equal"] = Field("examples", description="weight of a worker in the average")
    precision: Literal["exact", "float32", "float16", "bfloat16", "int8"] = Field(
        "exact",
        description="exact: workers send their weights; else their differences from the round's start, rounded to this",
    )
    error_feedback: bool = Field(
        False,
        description="collective, with a precision that rounds: a worker keeps its rounding error and adds it to "
        "its next difference",
    )
    overlap: Literal[0, 1] = Field(
        0,
        description="collective: rounds by which an average may be late: 1 averages a round while the next one trains",
    )
    overlap_drain: PositiveInt = Field(
        10,
        description="with overlap: rounds between two that all workers wait for, so that they hold the same model; "
        "only those, and the last, are committed",
    )
    outer: AnyOuter = outer_section()
    min_workers: PositiveInt | None = Field(
        None,
        description="a quorum: a round continues without workers whose tasks failed for good, if this many are left; "
        "their rows are then missing from average and scores, and the ledger says so; default: all are needed",
    )
    round_cost: Annotated[float, Field(ge=0.0, le=1e9)] | None = Field(
        None,
        description="for epochs_per_round auto: time of a round besides training, in epochs; default: measured once, "
        "before the first round",
    )
    slice_elements: PositiveInt = Field(1_048_576, description="elements of a slice; rounded up to blocks of 65536")
    gang_timeout_seconds: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        120.0,
        description="collective: how long the workers wait until all of them run at once; after a loss longer, by the "
        "time that YARN takes to notice that a node is lost",
    )
    gang_fallback: Literal["stop", "rounds"] = Field(
        "stop", description="collective, when not all workers run at once in time: stop, or continue in rounds mode"
    )
    worker_timeout_seconds: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        60.0,
        description="collective: a worker without progress for this long is lost and replaced; one whose machine "
        "cannot be reached, after half of it",
    )
    encryption: bool = Field(
        True, description="collective: encrypt and authenticate what workers send; false: only for a network you trust"
    )


class Checkpoint(Section):
    """What is committed and kept of a run."""

    keep: Literal["all"] | PositiveInt = Field(3, description="commits whose model is kept; metrics are kept for all")
    every: PositiveInt | Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}s$")] = Field(
        "30s",
        description="collective: rounds (10, say) or seconds (30s) between two commits; else every round is one",
    )

    @property
    def rounds(self) -> int | None:
        """Rounds between two commits; None if seconds count."""
        return self.every if isinstance(self.every, int) else None

    @property
    def seconds(self) -> float | None:
        """Seconds between two commits; None if rounds count."""
        return None if isinstance(self.every, int) else float(self.every.removesuffix("s"))


class Config(Section):
    """One experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        "run", description="names the run directory; letters, digits, . _ -"
    )
    seed: Seed = Field(0, description="of all random numbers, together with the split's own seed")
    workers: Annotated[int, Field(ge=1, le=100_000, strict=True)] = Field(1, description="map tasks")
    reducers: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = Field(
        None, description="reduce tasks; default: as many as there are slices, at most workers"
    )
    run_dir: str | None = Field(None, description="default: runs/NAME-N, the first N that is free")
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="keys of model, train ... -> lists of values: one trial per split and combination"
    )
    data: Data
    split: Split = Split()
    sampling: Sampling = Sampling()
    model: AnyModel = model_section()
    train: AnyTrain = train_section()
    sync: Sync = Sync()
    checkpoint: Checkpoint = Checkpoint()
    runtime: Runtime = Runtime()
    evaluate: Evaluate = Evaluate()
    splitting: Splitting | None = Field(
        None,
        description="what `nnjobs split-study` compares",
        json_schema_extra=since("0.2", before=None),
    )
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        check_training(self.model, self.train, self.sync.mode, self.sync.gang_fallback)
        check_subnets(self.train, self.sync.mode, self.workers)
        check_device(self.model, self.runtime)
        needs = "train.stop" if self.train.stop else "train.keep: best" if self.train.keep == "best" else None
        if needs and self.split.validation <= 0.0 and self.split.column is None:
            raise ValueError(f"{needs} needs validation rows: set split.validation (0.1, say)")
        if (self.sync.min_workers or 0) > self.workers:
            raise ValueError(f"sync.min_workers is {self.sync.min_workers}, but workers is {self.workers}")
        if self.sync.min_workers is not None and self.sync.mode == "collective":
            raise ValueError("sync.min_workers is for sync.mode: rounds: a collective job needs all its workers")
        if self.sync.error_feedback and self.sync.precision == "exact":
            raise ValueError("sync.error_feedback needs a sync.precision that rounds: int8, say")
        if self.sync.error_feedback and self.sync.mode != "collective":
            raise ValueError(
                "sync.error_feedback needs sync.mode: collective: what a worker keeps would be lost with its task"
            )
        if self.sync.error_feedback and self.sync.gang_fallback == "rounds":
            raise ValueError("sync.error_feedback cannot go on in rounds mode: set sync.gang_fallback: stop")
        if self.sync.overlap and (reason := self._cannot_overlap()):
            raise ValueError(f"sync.overlap {reason}")
        if self.data.augment is not None and not OPTIMIZERS.of(self.train).averages_gradients:
            raise ValueError(
                f"data.augment changes the rows of each step: train.optimizer: {self.train.optimizer} takes no steps"
            )
        if self.sync.every == "batch" and self.sync.mode != "collective":
            raise ValueError(
                "sync.every: batch needs sync.mode: collective: a MapReduce job a batch would take forever"
            )
        if self.sync.every == "batch" and not OPTIMIZERS.of(self.train).averages_gradients:
            raise ValueError(f"sync.every: batch averages steps' gradients: {self.train.optimizer} takes no such steps")
        if self.sync.every == "batch" and self.sync.weighting != "examples":
            raise ValueError("sync.every: batch weights gradients by examples: set sync.weighting: examples")
        if self.sync.every == "batch" and self.sync.precision != "exact":
            raise ValueError("sync.every: batch averages exact gradients: set sync.precision: exact")
        if self.sync.every == "batch" and self.sync.gang_fallback == "rounds":
            raise ValueError("sync.every: batch cannot go on in rounds mode: set sync.gang_fallback: stop")
        return self

    def _cannot_overlap(self) -> str | None:
        if self.sync.mode != "collective":
            return "needs sync.mode: collective: a round's tasks end before the next one's begin"
        if self.sync.gang_fallback == "rounds":
            return "cannot go on in rounds mode: set sync.gang_fallback: stop"
        if self.sync.every == "batch":
            return "is for averages after epochs: set sync.every: epochs"
        if self.train.epochs_per_round == "auto":
            return "needs a number of train.epochs_per_round: auto chooses by an average that is not there yet"
        if self.train.optimizer_state == "average":
            return "needs train.optimizer_state: reset or keep: late averages could make squares negative"
        return None

    def with_overrides(self, overrides: Mapping[str, Any]) -> Config:
        """Return the configuration of one combination of the sweep: with other values of dotted keys, and no sweep.

        Raises `pydantic.ValidationError`.
        """
        return type(self).model_validate(applied({**self.model_dump(mode="json"), "sweep": {}}, overrides))

    @model_validator(mode="after")
    def _sweep_fits(self) -> Config:
        """Every combination must be a legal configuration by itself."""
        for key in self.sweep:
            if not sweepable(key):
                raise ValueError(f"sweep: trials of one run cannot differ in {key!r}")
        if self.sweep:
            for overrides in combinations(self.sweep):
                try:
                    self.with_overrides(overrides)
                except ValidationError as error:  # raised as it is, it would name the keys outside the sweep
                    problem = error.errors(include_url=False)[0]
                    keys = [str(part) for part in problem["loc"] if "=" not in str(part)]  # without the tags of kinds
                    names = [".".join(keys), problem["msg"].removeprefix("Value error, ")]
                    with_values = ", ".join(f"{key} = {value!r}" for key, value in overrides.items())
                    raise ValueError(f"sweep: with {with_values}: {': '.join(filter(None, names))}") from None
        return self


def stored_config(values: dict[str, Any]) -> Config:
    """Return the configuration that a run stored, JSON-able, maybe by an earlier version.

    A key that the values lack means what versions without it did. Raises `pydantic.ValidationError`.
    """
    config = Config.model_validate(values)
    missing = missing_keys(config, values)
    return Config.model_validate(applied(values, missing)) if missing else config
