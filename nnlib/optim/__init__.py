"""Optimizers by name: local ones in `OPTIMIZERS` (two kinds, see `nnlib.optim.protocol`), outer steps in `OUTER`."""

from __future__ import annotations

from nnlib.config.schema import Train
from nnlib.core.errors import ConfigError
from nnlib.core.layout import Layout
from nnlib.optim.batch import LBFGS, ConjugateGradient
from nnlib.optim.outer import OUTER, OuterStep, build_outer
from nnlib.optim.protocol import BatchOptimizer, Minimum, StepOptimizer
from nnlib.optim.schedules import SCHEDULES, learning_rate
from nnlib.optim.steps import SGD, Adam, Momentum, Nesterov

__all__ = [
    "OPTIMIZERS",
    "OUTER",
    "SCHEDULES",
    "BatchOptimizer",
    "Minimum",
    "OuterStep",
    "StepOptimizer",
    "build_optimizer",
    "build_outer",
    "learning_rate",
]

Optimizer = type[SGD | Momentum | Nesterov | Adam | ConjugateGradient | LBFGS]

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adam": Adam,
    "cg": ConjugateGradient,
    "lbfgs": LBFGS,
}
"""Name -> class; its ``kind`` says whether it is a `StepOptimizer` or a `BatchOptimizer`."""


def build_optimizer(train: Train, layout: Layout) -> StepOptimizer | BatchOptimizer:
    """The local optimizer a configuration names. Raises `ConfigError` for a name that does not exist."""
    kind = OPTIMIZERS.get(train.optimizer)
    if kind is None:
        raise ConfigError(
            f"there is no optimizer {train.optimizer!r}", key="train.optimizer", hint=f"one of {', '.join(OPTIMIZERS)}"
        )
    return kind(train, layout)
