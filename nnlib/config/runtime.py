"""The sections of a configuration that say where and how a run is done: they never change its bits, but for
``runtime.blas_threads`` and ``runtime.device``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from nnlib.config.devices import parse_device
from nnlib.config.section import Count, PositiveInt, Section, since

SplitMethod = Literal[
    "all", "random", "spectral-weights", "spectral-activations", "least-cut-weights", "least-cut-activations"
]
"""How partitions of hidden units are chosen (`nnlib.splitting.methods`)."""


class Hadoop(Section):
    """What the hadoop runner asks of a cluster. The defaults suit most clusters."""

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
    gpus: Count = Field(
        0,
        description="GPUs of a map task's container (YARN's yarn.io/gpu); runtime.device: auto is then cuda",
        json_schema_extra=since("0.2", before=0),
    )
    keytab: str | None = Field(
        None,
        description="file with the key of `principal`, on the driver's machine; with it the driver gets Kerberos "
        "tickets by itself, for runs longer than one lasts; it is sent nowhere",
        json_schema_extra=since("0.2", before=None),
    )
    principal: str | None = Field(
        None,
        description="whose key is in `keytab`, such as ann@EXAMPLE.COM",
        json_schema_extra=since("0.2", before=None),
    )
    driver_memory_mb: PositiveInt | None = Field(
        None,
        description="memory of a detached driver (`nnjobs train --detach`) besides Python; default: by the models",
        json_schema_extra=since("0.2", before=None),
    )
    workers_per_task: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="collective mode: workers that share a container, a process each; auto: all workers of a "
        "node, where the cluster lists its nodes and neither memory_mb nor vcores is set",
    )
    jvm_options: str = Field(
        "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        description="of the JVMs of client, master and tasks: they live for seconds, so they compile quickly",
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

    @model_validator(mode="after")
    def _keytab_and_principal(self) -> Hadoop:
        if (self.keytab is None) != (self.principal is None):
            raise ValueError("keytab and principal belong together: set both or none")
        return self


class Runtime(Section):
    """Where tasks run, and what they may use."""

    runner: str = Field(
        "inline", description="inline: one process; local: one a task; hadoop: MapReduce jobs on a cluster"
    )
    cores: PositiveInt | None = Field(None, description="local: tasks at once; default: all cores")
    blas_threads: PositiveInt = Field(1, description="threads of one task's BLAS; part of the mathematics")
    device: str = Field(
        "auto",
        description="what computes torch modules: cpu, cuda, cuda:N or mps; auto: cuda or mps where there is one, else "
        "cpu; on a cluster cuda where runtime.hadoop.gpus asks for GPUs; each kind computes other bits",
        json_schema_extra=since("0.2", before="cpu"),
    )
    workers_per_gpu: PositiveInt = Field(
        1,
        description="local: workers that one device computes for at once",
        json_schema_extra=since("0.2", before=1),
    )
    memory_mb: PositiveInt = Field(256, description="a task keeps decoded rows up to this size, else re-reads them")
    cache_mb: Count = Field(
        4096, description="MB of shards of a dataset in HDFS that a node keeps on its own disk; 0: none"
    )
    cache_dir: str | None = Field(
        None, description="the folder for them; default: YARN's local directories, else the temporary folder"
    )
    decoded_mb: Count | None = Field(
        None,
        description="MB of decoded rows that a node keeps for all workers, rounds and runs; 0: none; default: a "
        "quarter of the free disk, at most as much as there is memory",
        json_schema_extra=since("0.2", before=0),
    )
    retries: Count = Field(3, description="times a failed task is tried again")
    task_timeout_seconds: Annotated[float, Field(gt=0.0, le=1e9)] | None = Field(
        None,
        description="a task that takes longer (local) or shows no progress for this time (hadoop) is killed and tried "
        "again; default: no limit (local), 600 (hadoop)",
    )
    numerics: Literal["strict", "loose"] = Field(
        "strict", description="strict refuses workers whose libraries or devices compute other bits"
    )
    hadoop: Hadoop = Hadoop()

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        parse_device(value)
        return value


class Evaluate(Section):
    """What `nnjobs evaluate` compares."""

    workers: list[Annotated[int, Field(ge=1, le=100_000)]] = Field(
        [], description="numbers of workers to compare, one run each; default: that of the experiment"
    )
    streams: list[Literal["independent", "shared"]] = Field(
        [], description="sampling.streams to compare; default: that of the experiment"
    )
    epochs: list[Count] = Field([], description="epochs at which the tables are read; default: train.epochs")
    control: bool = Field(True, description="run one worker, too, for every parallel result")
    published: Literal["none", "paper"] = Field("none", description="published results to compare with")


class Splitting(Section):
    """What `nnjobs split-study` compares."""

    groups: Annotated[int, Field(ge=2, le=26, strict=True)] = Field(
        2,
        description="groups that the hidden units of every layer are cut into",
        json_schema_extra=since("0.2", before=2),
    )
    methods: list[SplitMethod] = Field(
        ["all"],
        min_length=1,
        description="which partitions; all: every balanced one; random: some of them; spectral and least-cut: those "
        "that cut little of the weights, or of the covariance of activations, between units",
        json_schema_extra=since("0.2", before=["all"]),
    )
    random: PositiveInt = Field(
        100, description="partitions that the method random draws", json_schema_extra=since("0.2", before=100)
    )
    whole_rows: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5,
        description="part of the training rows that the whole net trains on, before it is cut; sub-nets train on the "
        "rest",
        json_schema_extra=since("0.2", before=0.5),
    )
    whole_epochs: Count | None = Field(
        None,
        description="epochs of the whole net before it is cut; default: train.epochs",
        json_schema_extra=since("0.2", before=None),
    )
    rows: PositiveInt = Field(
        2000,
        description="training rows on which activations are compared, the first of the dataset",
        json_schema_extra=since("0.2", before=2000),
    )


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
