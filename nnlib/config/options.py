"""The options of each kind of model, optimizer, schedule and outer step: the keys that this kind reads.

A class here has the keys of one kind, or of several that read the same. `nnlib.config.kinds` says which kind has which
options, `nnlib.config.tagged` joins them with the keys that every kind of a section has.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model, field_validator, model_validator

from nnlib.config.section import Count, Fraction, PositiveInt, Section, since

# --- models: section `model`


class ModelOptions(Section):
    """Options of every model; also the options of one that reads no others."""

    kind: str = Field("mlp", description="the kind of model")


class MLPOptions(ModelOptions):
    """Options of the multi-layer perceptron."""

    hidden: list[PositiveInt] = Field([100], max_length=64, description="width of each hidden layer; [] is linear")
    activation: Literal["sigmoid", "tanh", "relu"] = Field("relu", description="of every hidden layer")
    init: Literal["he", "xavier", "normal", "uniform01"] = Field("he", description="uniform01 is the paper's")

    @field_validator("hidden", mode="before")
    @classmethod
    def _one_layer(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) and not isinstance(value, bool) else value


class TorchOptions(ModelOptions):
    """Options of a torch module."""

    factory: str = Field(
        description="what makes the module: torch-mlp, simple-nn, simple-cnn or resnet-small, or module:function of "
        "one of `files` or of an installed package",
        json_schema_extra=since("0.2", before=None),
    )
    arguments: dict[str, Any] = Field(
        {}, description="keyword arguments of the factory", json_schema_extra=since("0.2", before={})
    )
    files: list[str] = Field(
        [],
        max_length=64,
        description="Python files of the factory and of what it imports, each a module of its name; relative to the "
        "configuration file. They run with your rights: see SECURITY.md",
        json_schema_extra=since("0.2", before=[]),
    )
    sha256: dict[str, str] = Field(
        {},
        description="filled in: SHA-256 of the files, of the installed module that `factory` names, and of `from`",
        json_schema_extra=since("0.2", before={}),
    )

    @property
    def weights(self) -> str | None:
        """The key ``from``, a word that Python keeps for itself: the address of the first weights."""
        address: str | None = getattr(self, "from")
        return address

    @field_validator("arguments")
    @classmethod
    def _is_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        if reserved := value.keys() & {"shape", "outputs"}:
            raise ValueError(f"{' and '.join(sorted(reserved))} come from the dataset: leave them out")
        return checked_json(value)


def checked_json(value: dict[str, Any]) -> dict[str, Any]:
    """Return a mapping that JSON can hold. Raises `ValueError` for another."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"must be what JSON can hold: {error}") from None
    return value


def torch_options(section: Section) -> TorchOptions | None:
    """Return a section `model` as that of a torch module; None if it is another kind's."""
    return section if isinstance(section, TorchOptions) else None


if not TYPE_CHECKING:
    TorchOptions = create_model(
        "TorchOptions",
        __base__=TorchOptions,
        __module__=__name__,
        __doc__=TorchOptions.__doc__,
        **{
            "from": (
                str | None,
                Field(
                    None,
                    description="a safetensors file with the first parameters, frozen ones and buffers; relative to "
                    "the configuration file",
                    json_schema_extra=since("0.2", before=None),
                ),
            )
        },
    )


# --- optimizers: section `train`


class OptimizerOptions(Section):
    """Options of every optimizer; also the options of one that reads no others."""

    optimizer: str = Field("momentum", description="what a worker trains by")


class RateOptions(OptimizerOptions):
    """Options of an optimizer that takes steps at a rate."""

    lr: Annotated[float, Field(gt=0.0, le=1e6)] = Field(0.05, description="learning rate")


class MomentumOptions(RateOptions):
    """Options of the heavy ball and of Nesterov's momentum."""

    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="part of the last step that is kept")


class AdamOptions(RateOptions):
    """Options of Adam."""

    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="decay of the mean of gradients")
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.999, description="decay of the mean of their squares")
    epsilon: Annotated[float, Field(gt=0.0)] = Field(1e-8, description="added to the root of that mean")


class AdamWOptions(AdamOptions):
    """Options of Adam with decoupled weight decay."""

    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        0.01,
        description="every step takes lr * weight_decay of each weight, apart from the gradient",
        json_schema_extra=since("0.2", before=0.0),
    )


class RMSpropOptions(RateOptions):
    """Options of RMSprop."""

    alpha: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.99, description="decay of the mean of squared gradients", json_schema_extra=since("0.2", before=0.99)
    )
    epsilon: Annotated[float, Field(gt=0.0)] = Field(1e-8, description="added to the root of that mean")
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, description="part of the last step that is kept")
    centered: bool = Field(
        False,
        description="divide by the deviation of the gradients, not by the root of their mean square",
        json_schema_extra=since("0.2", before=False),
    )


class OwnTorchOptions(RateOptions):
    """Options of an optimizer of torch."""

    options: dict[str, Any] = Field(
        {},
        description="arguments of the optimizer besides lr, as torch.optim names them: {betas: [0.9, 0.95]}",
        json_schema_extra=since("0.2", before={}),
    )

    @field_validator("options")
    @classmethod
    def _is_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        return checked_json(value)


class LBFGSOptions(OptimizerOptions):
    """Options of L-BFGS."""

    history: PositiveInt = Field(10, description="vector pairs kept")


# --- schedules: section `train.schedule`


class ScheduleOptions(Section):
    """Options of every schedule; also the options of one that reads no others."""

    kind: str = Field("constant", description="how lr changes over the epochs")
    by: Literal["epoch", "step"] = Field(
        "epoch",
        description="epoch: lr changes between epochs; step: with every step, smoothly",
        json_schema_extra=since("0.2", before="epoch"),
    )
    warmup_epochs: Count = Field(0, description="epochs of linear warm-up before the schedule")
    warmup_steps: Count = Field(
        0,
        description="by step: steps of linear warm-up, on each worker, in place of warmup_epochs",
        json_schema_extra=since("0.2", before=0),
    )

    @model_validator(mode="after")
    def _warms_up_once(self) -> ScheduleOptions:
        if self.warmup_steps and self.by != "step":
            raise ValueError("warmup_steps needs by: step")
        if self.warmup_steps and self.warmup_epochs:
            raise ValueError("warmup_epochs and warmup_steps exclude each other: set one of them")
        return self


class StepOptions(ScheduleOptions):
    """Options of a rate that drops now and then."""

    step_epochs: PositiveInt = Field(30, description="epochs between two drops")
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.1, description="factor of one drop")


class ExponentialOptions(ScheduleOptions):
    """Options of a rate that drops after every epoch."""

    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.1, description="factor of one epoch")


class InverseOptions(ScheduleOptions):
    """Options of a rate that is divided by 1 + gamma * epoch."""

    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.1, description="decay of one epoch")


class CosineOptions(ScheduleOptions):
    """Options of a rate that follows half a cosine."""

    final: Fraction = Field(0.0, description="fraction of lr left at the last epoch")


# --- outer steps: section `sync.outer`


class OuterOptions(Section):
    """Options of every outer step; also the options of one that reads no others."""

    kind: str = Field("mean", description="the outer step: what makes the next model from the workers' average")
    lr: Annotated[float, Field(gt=0.0, le=100.0)] = Field(1.0, description="rate of the outer step; 1: the average")


class OuterMomentumOptions(OuterOptions):
    """Options of an outer step that goes on in the direction of the steps before."""

    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="part of the last outer step that is kept"
    )
