"""Models by name: a new kind is one file here, its options and one line in `nnlib.config.kinds.MODELS`."""

from __future__ import annotations

from typing import Protocol

from nnlib.config.kinds import MODELS
from nnlib.config.schema import Model as ModelConfig
from nnlib.core.errors import ConfigError
from nnlib.models.parts import ModelParts
from nnlib.models.protocol import BoundModel, LearningTask, Model

__all__ = ["BoundModel", "LearningTask", "Model", "ModelFactory", "ModelParts", "build_model", "output_of"]


class ModelFactory(Protocol):
    """What a line of `nnlib.config.kinds.MODELS` names."""

    def __call__(self, config: ModelConfig, *, shape: tuple[int, ...], outputs: int, loss: str) -> Model:
        """Build the model of a section; ``config`` has the options of the kind, ``shape`` is that of a row."""
        ...


class PartedModelFactory(Protocol):
    """What such a line names for a kind that has parts."""

    def __call__(
        self, config: ModelConfig, *, shape: tuple[int, ...], outputs: int, loss: str, parts: ModelParts
    ) -> Model:
        """Build the model of a section, with its parts."""
        ...


_OUTPUTS: dict[LearningTask, tuple[str, ...]] = {
    "classification": ("softmax", "sigmoid"),
    "regression": ("linear",),
}
"""The outputs that fit a task; the first is what ``auto`` means."""


def build_model(
    config: ModelConfig,
    *,
    shape: tuple[int, ...],
    outputs: int,
    task: LearningTask,
    parts: ModelParts | None = None,
) -> Model:
    """Build the model that a section describes. ``shape``: of a row; ``outputs``: classes, or 1 for regression;
    ``parts``: what the model needs besides, where its kind has parts.

    Raises `ConfigError` for a kind that does not exist, one whose package is not installed, and an output that does not
    fit the task.
    """
    kind = MODELS.of(config)
    factory, loss = kind.load(), output_of(config, task)
    if kind.has_parts:
        with_parts: PartedModelFactory = factory
        return with_parts(config, shape=shape, outputs=outputs, loss=loss, parts=parts or ModelParts())
    plain: ModelFactory = factory
    return plain(config, shape=shape, outputs=outputs, loss=loss)


def output_of(config: ModelConfig, task: LearningTask) -> str:
    """Return what ``model.output`` means for a task: the loss of the model, a key of
    `nnlib.models.functions.LOSSES`. Raises `ConfigError` where it does not fit."""
    if task not in _OUTPUTS:
        raise ConfigError(
            "the dataset holds blocks of tokens, and no kind of model here trains on them",
            hint="import the texts with `nnjobs data import --text`, for classes; other programs read the blocks",
            key="model.kind",
        )
    fitting = _OUTPUTS[task]
    loss = fitting[0] if config.output == "auto" else config.output
    if loss not in fitting:
        raise ConfigError(
            f"{loss} does not fit {task}", key="model.output", hint=f"auto, or one of {', '.join(fitting)}"
        )
    return loss
