"""Models by name: a new kind is one file here, its options and one line in `nnlib.config.kinds.MODELS`."""

from __future__ import annotations

from typing import Protocol

from nnlib.config.kinds import MODELS
from nnlib.config.schema import Model as ModelConfig
from nnlib.core.errors import ConfigError
from nnlib.models.protocol import BoundModel, LearningTask, Model

__all__ = ["BoundModel", "LearningTask", "Model", "ModelFactory", "build_model", "output_of"]


class ModelFactory(Protocol):
    """What a line of `nnlib.config.kinds.MODELS` names."""

    def __call__(self, config: ModelConfig, *, shape: tuple[int, ...], outputs: int, loss: str) -> Model:
        """Build the model of a section; ``config`` has the options of the kind, ``shape`` is that of a row."""
        ...


_OUTPUTS: dict[LearningTask, tuple[str, ...]] = {"classification": ("softmax", "sigmoid"), "regression": ("linear",)}
"""The outputs that fit a task; the first is what ``auto`` means."""


def build_model(config: ModelConfig, *, shape: tuple[int, ...], outputs: int, task: LearningTask) -> Model:
    """Build the model that a section describes. ``shape``: of a row; ``outputs``: classes, or 1 for regression.

    Raises `ConfigError` for a kind that does not exist and an output that does not fit the task.
    """
    factory: ModelFactory = MODELS.of(config).load()
    return factory(config, shape=shape, outputs=outputs, loss=output_of(config, task))


def output_of(config: ModelConfig, task: LearningTask) -> str:
    """Return what ``model.output`` means for a task: the loss of the model, a key of
    `nnlib.models.functions.LOSSES`. Raises `ConfigError` where it does not fit."""
    fitting = _OUTPUTS[task]
    loss = fitting[0] if config.output == "auto" else config.output
    if loss not in fitting:
        raise ConfigError(
            f"{loss} does not fit {task}", key="model.output", hint=f"auto, or one of {', '.join(fitting)}"
        )
    return loss
