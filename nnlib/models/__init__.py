"""Models by name: a new kind is one file and one line in `MODELS`."""

from __future__ import annotations

from typing import Protocol

from nnlib.config.schema import Model as ModelConfig
from nnlib.core.errors import ConfigError
from nnlib.models import mlp
from nnlib.models.protocol import BoundModel, Model, Task

__all__ = ["MODELS", "BoundModel", "Model", "ModelFactory", "Task", "build_model"]


class ModelFactory(Protocol):
    def __call__(self, config: ModelConfig, *, features: int, outputs: int, loss: str) -> Model: ...


MODELS: dict[str, ModelFactory] = {"mlp": mlp.build}

_OUTPUTS: dict[Task, tuple[str, ...]] = {"classification": ("softmax", "sigmoid"), "regression": ("linear",)}
"""The outputs that fit a task; the first is what ``auto`` means."""


def build_model(config: ModelConfig, *, features: int, outputs: int, task: Task) -> Model:
    """The model a configuration describes. ``outputs``: number of classes, or 1 for regression.

    Raises `ConfigError` for a kind that does not exist and an output that does not fit the task.
    """
    factory = MODELS.get(config.kind)
    if factory is None:
        raise ConfigError(f"there is no model {config.kind!r}", key="model.kind", hint=f"one of {', '.join(MODELS)}")
    fitting = _OUTPUTS[task]
    loss = fitting[0] if config.output == "auto" else config.output
    if loss not in fitting:
        raise ConfigError(
            f"{loss} does not fit {task}", key="model.output", hint=f"auto, or one of {', '.join(fitting)}"
        )
    return factory(config, features=features, outputs=outputs, loss=loss)
