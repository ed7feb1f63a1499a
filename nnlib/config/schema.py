"""What a configuration may say: every key, its type, legal values and default, as data.

Keys marked ``MATHEMATICS`` (see `nnlib.config.identity`) decide the final bits; the others (where it runs, where it
is stored, how it is cut) may not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from nnlib.config.section import Count, Fraction, PositiveInt, Section, Seed
from nnlib.config.sweep import applied, combinations, sweepable


class Data(Section):
    path: str = Field(description="dataset directory, made by `nnjobs data import`")
    scale: Literal["none", "standard", "minmax"] = Field(
        "none", description="feature scaling, fitted on training rows and stored with the model"
    )


class Split(Section):
    train: Fraction = Field(0.7, description="fraction of the rows to train on")
    validation: Fraction = Field(0.0, description="fraction for early stopping and for choosing the best round")
    test: Fraction | None = Field(None, description="fraction to score; default: all the rest")
    seeds: list[Seed] = Field([0], min_length=1, description="one trial per seed")
    folds: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="k-fold cross-validation: k trials per seed, each tested on its own k-th; 0: no folds"
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
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="part of a worker's training rows drawn anew every round"
    )
    streams: Literal["independent", "shared"] = Field(
        "independent", description="independent: own shards, own draws; shared (the paper): all shards, the same draws"
    )
    window_rows: PositiveInt = Field(65_536, description="rows shuffled together; row groups are shuffled besides")


class Model(Section):
    kind: str = Field("mlp", description="mlp: a multi-layer perceptron")
    hidden: list[PositiveInt] = Field([100], max_length=64, description="width of each hidden layer; [] is linear")
    activation: Literal["sigmoid", "tanh", "relu"] = Field("relu", description="of every hidden layer")
    output: Literal["auto", "softmax", "sigmoid", "linear"] = Field(
        "auto", description="auto: softmax for classes, linear for a numeric target; sigmoid: one-vs-rest"
    )
    init: Literal["he", "xavier", "normal", "uniform01"] = Field("he", description="uniform01 is the paper's")
    dtype: Literal["float32", "float64"] = Field("float32", description="of weights and features in training")

    @field_validator("hidden", mode="before")
    @classmethod
    def _one_layer(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) and not isinstance(value, bool) else value


class Schedule(Section):
    kind: Literal["constant", "step", "exponential", "cosine", "inverse"] = Field(
        "constant", description="how lr goes on over the epochs"
    )
    step_epochs: PositiveInt = Field(30, description="step: epochs between two drops")
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.1, description="step, exponential: factor of one drop (exponential: one epoch); inverse: decay a epoch"
    )
    final: Fraction = Field(0.0, description="cosine: fraction of lr left at the last epoch")
    warmup_epochs: Count = Field(0, description="epochs of linear warm-up before the schedule")


class Stop(Section):
    patience: PositiveInt = Field(description="scored rounds without improvement before a trial stops")
    min_delta: Annotated[float, Field(ge=0.0)] = Field(0.0, description="smaller improvements do not count")


class Train(Section):
    optimizer: str = Field("momentum", description="sgd, momentum, nesterov, adam, cg or lbfgs")
    lr: Annotated[float, Field(gt=0.0, le=1e6)] = Field(0.05, description="learning rate; cg and lbfgs search theirs")
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="momentum and nesterov")
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="adam")
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.999, description="adam")
    epsilon: Annotated[float, Field(gt=0.0)] = Field(1e-8, description="adam")
    history: PositiveInt = Field(10, description="lbfgs: vector pairs kept")
    batch_size: PositiveInt = Field(32, description="rows a step on one worker; cg and lbfgs use all their rows")
    epochs: Count = Field(100, description="local passes over the data; iterations for cg and lbfgs")
    epochs_per_round: Literal["auto"] | PositiveInt = Field(
        5, description="local epochs between two averagings; auto: few at first, more as workers drift apart less"
    )
    l2: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="lambda: adds lambda/(2m) * sum of squared weights, m = training rows in the objective"
    )
    schedule: Schedule = Schedule()
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0.0)]] = Field(
        "none", description="weight of each class in the loss; balanced: rows / (classes * rows of the class)"
    )
    optimizer_state: Literal["reset", "average"] = Field("reset", description="what a round does to optimizer state")
    stop: Stop | None = Field(None, description="early stopping by the validation rows")
    keep: Literal["last", "best"] = Field("last", description="best: the round with the least validation loss")


class Outer(Section):
    kind: str = Field("mean", description="mean, momentum (server momentum) or nesterov (DiLoCo)")
    lr: Annotated[float, Field(gt=0.0, le=100.0)] = Field(1.0, description="rate of the outer step; 1: the average")
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, description="momentum and nesterov")


class Sync(Section):
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
        description="exact: workers give their weights; else what these differ by from the round's start, so rounded",
    )
    error_feedback: bool = Field(
        False,
        description="collective, with a precision that rounds: what rounding takes from a worker's difference is kept "
        "and added to its next one",
    )
    overlap: Literal[0, 1] = Field(
        0,
        description="collective: rounds by which an average may be late: 1 averages a round while the next one trains",
    )
    overlap_drain: PositiveInt = Field(
        10,
        description="with overlap: rounds between two that are waited for, so that all go on from the same model; only "
        "those, and the last, are committed",
    )
    outer: Outer = Outer()
    min_workers: PositiveInt | None = Field(
        None,
        description="a quorum: a round goes on without workers whose tasks failed for good, if so many are left; their "
        "rows are then missing from average and scores, and the ledger says so; default: all are needed",
    )
    round_cost: Annotated[float, Field(ge=0.0, le=1e9)] | None = Field(
        None,
        description="for epochs_per_round auto: time of a round besides training, in epochs; default: measured once, "
        "before the first round",
    )
    slice_elements: PositiveInt = Field(1_048_576, description="elements of a slice; rounded up to blocks of 65536")
    gang_timeout_seconds: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        120.0, description="collective: how long the workers wait until all of them run at once"
    )
    gang_fallback: Literal["stop", "rounds"] = Field(
        "stop", description="collective, when not all workers come to run at once: stop, or go on in rounds mode"
    )
    worker_timeout_seconds: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        60.0, description="collective: a worker that does not get on for so long is lost and replaced"
    )
    encryption: bool = Field(
        True, description="collective: encrypt and authenticate what workers send; false: for a network that is trusted"
    )


class Checkpoint(Section):
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


class Hadoop(Section):
    """What the hadoop runner asks of a cluster; everything has a default that suits most."""

    queue: str | None = Field(None, description="YARN queue; default: the cluster's")
    uber: Literal["auto", "on", "off"] = Field(
        "auto",
        description="on: a job's tasks run in its master's container, one after the other; auto: where that is "
        "quicker than starting containers",
    )
    memory_mb: PositiveInt | None = Field(
        None, description="memory of a task's container; default: by model, batch and runtime.memory_mb"
    )
    vcores: PositiveInt | None = Field(None, description="cores of a task's container; default: runtime.blas_threads")
    workers_per_task: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="collective mode: so many workers share a container, each a process of its own; auto: those of a "
        "node, where the cluster tells its nodes and neither memory_mb nor vcores is set",
    )
    jvm_options: str = Field(
        "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        description="of the client, the master and the tasks: they live for seconds, so they compile quickly",
    )
    heap_mb: PositiveInt | None = Field(None, description="heap of a task's JVM; default: by the size of a slice")
    archive: str | None = Field(
        None, description="packed environment (`nnjobs pack`), here or in HDFS; default: packed from this one"
    )
    python_bin: str | None = Field(
        None, description="Python of the nodes, with nnjobs installed; then nothing is packed"
    )
    preflight: Literal["auto", "job", "off"] = Field(
        "auto", description="auto: the first job's tasks report on their nodes; job: a job of its own does, before it"
    )
    speculative: bool = Field(True, description="a slow task may be started twice; the first to end counts")
    scratch: str | None = Field(
        None, description="HDFS folder for plans, outputs and environments; default: .nnjobs in the user's home"
    )
    mrjob_conf: str = Field(
        "configs/mrjob/hadoop.conf", description="mrjob's own configuration file, read if it is there"
    )
    jobconf: dict[str, str] = Field({}, description="Hadoop properties, which win over all others")


class Runtime(Section):
    runner: str = Field(
        "inline", description="inline: one process; local: one a task; hadoop: MapReduce jobs on a cluster"
    )
    cores: PositiveInt | None = Field(None, description="local: tasks at once; default: all cores")
    blas_threads: PositiveInt = Field(1, description="threads of one task's BLAS; part of the mathematics")
    memory_mb: PositiveInt = Field(256, description="a task keeps decoded rows up to this size, else re-reads them")
    cache_mb: Count = Field(
        4096, description="MB of shards of a dataset in HDFS that a node keeps on its own disk; 0: none"
    )
    cache_dir: str | None = Field(
        None, description="where it keeps them; default: YARN's local directories, else the temporary folder"
    )
    retries: Count = Field(3, description="times a failed task is tried again")
    task_timeout_seconds: Annotated[float, Field(gt=0.0, le=1e9)] | None = Field(
        None,
        description="a task that takes longer (local) or shows no progress for so long (hadoop) is killed and tried "
        "again; default: no limit (local), 600 (hadoop)",
    )
    numerics: Literal["strict", "loose"] = Field(
        "strict", description="strict refuses workers whose BLAS computes other bits"
    )
    hadoop: Hadoop = Hadoop()


class Evaluate(Section):
    workers: list[Annotated[int, Field(ge=1, le=100_000)]] = Field(
        [], description="numbers of workers to compare, one run each; default: that of the experiment"
    )
    streams: list[Literal["independent", "shared"]] = Field(
        [], description="sampling.streams to compare; default: that of the experiment"
    )
    epochs: list[Count] = Field([], description="epochs at which the tables are read; default: train.epochs")
    control: bool = Field(True, description="run one worker beside every parallel result")
    published: Literal["none", "paper"] = Field("none", description="whose numbers to set beside ours")


class Tracking(Section):
    """Experiment trackers, written by the driver alone (`nnlib.tracking`)."""

    tensorboard: bool | str = Field(
        False, description="event files (extra: tensorboard); true: tensorboard/ in the run directory; or a folder"
    )
    mlflow: bool | str = Field(
        False,
        description="MLflow runs (extra: mlflow): a server's address or a folder; true: where MLFLOW_TRACKING_URI says",
    )
    experiment: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        "nnjobs", description="mlflow: the experiment that runs belong to"
    )


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
    model: Model = Model()
    train: Train = Train()
    sync: Sync = Sync()
    checkpoint: Checkpoint = Checkpoint()
    runtime: Runtime = Runtime()
    evaluate: Evaluate = Evaluate()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        needs = "train.stop" if self.train.stop else "train.keep: best" if self.train.keep == "best" else None
        if needs and self.split.validation <= 0.0 and self.split.column is None:
            raise ValueError(f"{needs} needs validation rows: set split.validation (0.1, say)")
        if (self.sync.min_workers or 0) > self.workers:
            raise ValueError(f"sync.min_workers is {self.sync.min_workers}, but workers is {self.workers}")
        if self.sync.min_workers is not None and self.sync.mode == "collective":
            raise ValueError("sync.min_workers is for sync.mode: rounds: a group does nothing without all its workers")
        if self.sync.error_feedback and self.sync.precision == "exact":
            raise ValueError("sync.error_feedback needs a sync.precision that rounds: int8, say")
        if self.sync.error_feedback and self.sync.mode != "collective":
            raise ValueError(
                "sync.error_feedback needs sync.mode: collective: what a worker keeps would not outlive a round's tasks"
            )
        if self.sync.error_feedback and self.sync.gang_fallback == "rounds":
            raise ValueError("sync.error_feedback cannot go on in rounds mode: set sync.gang_fallback: stop")
        if self.sync.overlap and (reason := self._cannot_overlap()):
            raise ValueError(f"sync.overlap {reason}")
        if self.sync.every == "batch" and self.sync.mode != "collective":
            raise ValueError(
                "sync.every: batch needs sync.mode: collective: a MapReduce job a batch would take forever"
            )
        if self.sync.every == "batch" and self.train.optimizer in ("cg", "lbfgs"):
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
            return "needs train.optimizer_state: reset: late averages could make squares negative"
        return None

    @model_validator(mode="after")
    def _sweep_fits(self) -> Config:
        """Every combination must be a legal configuration by itself."""
        for key in self.sweep:
            if not sweepable(key):
                raise ValueError(f"sweep: trials of one run cannot differ in {key!r}")
        if self.sweep:
            plain = {**self.model_dump(mode="json"), "sweep": {}}
            for overrides in combinations(self.sweep):
                try:
                    type(self).model_validate(applied(plain, overrides))
                except ValidationError as error:  # raised as it is, it would tell of the keys outside the sweep
                    problem = error.errors(include_url=False)[0]
                    names = [".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")]
                    with_values = ", ".join(f"{key} = {value!r}" for key, value in overrides.items())
                    raise ValueError(f"sweep: with {with_values}: {': '.join(filter(None, names))}") from None
        return self
