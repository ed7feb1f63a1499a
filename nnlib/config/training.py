"""The sections of a configuration that name a kind: `model`, `train`, `train.schedule`, `sync.outer`.

`Model`, `Train`, `Schedule` and `Outer` have the keys that every kind has. A section of a configuration is an instance
of a subclass that has the options of its kind, too: ``isinstance(config.train, MomentumOptions)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from nnlib.config.kinds import MODELS, OPTIMIZERS, OUTER_STEPS, SCHEDULES
from nnlib.config.options import ModelOptions, OptimizerOptions, OuterOptions, ScheduleOptions
from nnlib.config.section import Count, PositiveInt, Section, since
from nnlib.config.tagged import tagged_section, tagged_union
from nnlib.core.metrics import METRICS
from nnlib.core.partition import Alternate, Partition


class _Numbers(Section):
    output: Literal["auto", "softmax", "sigmoid", "linear"] = Field(
        "auto", description="auto: softmax for classes, linear for a numeric target; sigmoid: one-vs-rest"
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="of weights and features in training")


class Model(_Numbers, ModelOptions):
    """The section `model`, whatever the kind."""


Schedule = ScheduleOptions
"""The section `train.schedule`, whatever the kind."""

Outer = OuterOptions
"""The section `sync.outer`, whatever the kind."""


if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[("loss", *(name for name in METRICS if name != "loss"))]


def _partition_text(value: str) -> str:
    Partition.parse(value)
    return value


Partitioned = Annotated[str, AfterValidator(_partition_text)]
"""The text of a `nnlib.core.partition.Partition`."""


class Stop(Section):
    """Early stopping."""

    patience: PositiveInt = Field(description="scored rounds without improvement before a trial stops")
    metric: MetricName = Field(
        "loss",
        description="what is to improve on the validation rows; `train.keep: best` keeps the round where it is best",
        json_schema_extra=since("0.2", before="loss"),
    )
    min_delta: Annotated[float, Field(ge=0.0)] = Field(0.0, description="smaller improvements do not count")


class Subnets(Section):
    """Training of sub-nets: workers train parts of the net, and what they hold in common is averaged."""

    partition: Partitioned | None = Field(
        None,
        description="groups of hidden units: a letter for each unit, layers joined by -, such as aabb-abab; a worker "
        "trains one group of each layer with all inputs and outputs; null: the whole net",
        json_schema_extra=since("0.2", before=None),
    )
    alternate: Alternate = Field(
        "together",
        description="which groups make a sub-net; none: those of the same letter, so weights between other groups are "
        "never trained; together: all pairs of neighbouring layers' groups, at once on as many workers; rounds: in "
        "turn, round by round",
        json_schema_extra=since("0.2", before="together"),
    )
    between: Literal["keep", "zero"] = Field(
        "keep",
        description="weights between groups, which no sub-net trains with alternate: none; keep: they stay; zero: they "
        "become 0, so that the sub-nets are the members of an ensemble",
        json_schema_extra=since("0.2", before="keep"),
    )
    rescale: bool = Field(
        False,
        description="multiply the weights of hidden units' outputs in a sub-net, so that a unit gets as much from "
        "fewer units; divide them again afterwards; with between: zero only those of the last hidden layer",
        json_schema_extra=since("0.2", before=False),
    )


if TYPE_CHECKING:
    AnySchedule = Schedule
else:
    AnySchedule = tagged_union(Schedule, SCHEDULES)


class _Training(Section):
    batch_size: PositiveInt = Field(32, description="rows a step on one worker; cg and lbfgs use all their rows")
    epochs: Count = Field(100, description="local passes over the data; iterations for cg and lbfgs")
    epochs_per_round: Literal["auto"] | PositiveInt = Field(
        5, description="local epochs between two averagings; auto: few at first, more as workers drift apart less"
    )
    micro_batch: PositiveInt | None = Field(
        None,
        description="rows that are computed at once: a step adds up the gradients of its parts, to use less memory; "
        "default: all rows of a step",
        json_schema_extra=since("0.2", before=None),
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of products in training; float32: as model.dtype says; bfloat16: rounded for speed, not for all "
        "kinds of models",
        json_schema_extra=since("0.2", before="float32"),
    )
    loss: Literal["auto", "huber"] = Field(
        "auto",
        description="of training; auto: by model.output; huber (of a numeric target): squares of small errors, "
        "absolute values of large ones",
        json_schema_extra=since("0.2", before="auto"),
    )
    huber_delta: Annotated[float, Field(gt=0.0)] = Field(
        1.0,
        description="huber: error above which it is linear; of targets as they are scaled for training",
        json_schema_extra=since("0.2", before=1.0),
    )
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0,
        description="with a softmax: part of each label that is spread evenly over all classes, in training",
        json_schema_extra=since("0.2", before=0.0),
    )
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(
        None,
        description="a gradient whose norm is greater is scaled to this norm, before the L2 term is added",
        json_schema_extra=since("0.2", before=None),
    )
    l2: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="lambda: adds lambda/(2m) * sum of squared weights, m = training rows in the objective"
    )
    decay: Literal["matrices", "all"] = Field(
        "matrices",
        description="which parameters l2 and weight_decay count; matrices: those of two or more dimensions, no biases",
        json_schema_extra=since("0.2", before="matrices"),
    )
    schedule: AnySchedule = tagged_section(Schedule, SCHEDULES, {})
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0.0)]] = Field(
        "none", description="weight of each class in the loss; balanced: rows / (classes * rows of the class)"
    )
    optimizer_state: Literal["reset", "average", "keep"] = Field(
        "reset",
        description="what a round does to optimizer state; keep (collective): each worker goes on with its own",
    )
    subnets: Subnets | None = Field(
        None,
        description="train sub-nets, made of groups of hidden units, instead of the whole net on every worker",
        json_schema_extra=since("0.2", before=None),
    )
    stop: Stop | None = Field(None, description="early stopping by the validation rows")
    keep: Literal["last", "best"] = Field(
        "last", description="best: the round with the least validation loss, or the best `train.stop.metric`"
    )


class Train(_Training, OptimizerOptions):
    """The section `train`, whatever the optimizer."""


if TYPE_CHECKING:
    AnyModel = Model
    AnyTrain = Train
    AnyOuter = Outer
else:
    AnyModel = tagged_union(Model, MODELS)
    AnyTrain = tagged_union(Train, OPTIMIZERS)
    AnyOuter = tagged_union(Outer, OUTER_STEPS)


def model_section(**values: Any) -> Model:
    """Return a section `model` with these keys. Raises `pydantic.ValidationError`."""
    return tagged_section(Model, MODELS, values)


def train_section(**values: Any) -> Train:
    """Return a section `train` with these keys. Raises `pydantic.ValidationError`."""
    return tagged_section(Train, OPTIMIZERS, values)


def schedule_section(**values: Any) -> Schedule:
    """Return a section `train.schedule` with these keys. Raises `pydantic.ValidationError`."""
    return tagged_section(Schedule, SCHEDULES, values)


def outer_section(**values: Any) -> Outer:
    """Return a section `sync.outer` with these keys. Raises `pydantic.ValidationError`."""
    return tagged_section(Outer, OUTER_STEPS, values)
