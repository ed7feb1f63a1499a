"""Optimizers, outer steps and schedules by name: the tables are in `nnlib.config.kinds`."""

from __future__ import annotations

from nnlib.config.kinds import OPTIMIZERS, OUTER_STEPS
from nnlib.config.schema import Outer, Train
from nnlib.core.layout import Layout
from nnlib.optim.outer import OuterStep
from nnlib.optim.protocol import BatchOptimizer, Minimum, StepOptimizer
from nnlib.optim.schedules import learning_rate

__all__ = [
    "BatchOptimizer",
    "Minimum",
    "OuterStep",
    "StepOptimizer",
    "build_optimizer",
    "build_outer",
    "learning_rate",
]


def build_optimizer(train: Train, layout: Layout) -> StepOptimizer | BatchOptimizer:
    """Build the local optimizer that a section names. Raises `ConfigError` for a name that does not exist."""
    optimizer: StepOptimizer | BatchOptimizer = OPTIMIZERS.of(train).load()(train, layout)
    return optimizer


def build_outer(config: Outer, size: int) -> OuterStep:
    """Build the outer step that a section names, for models of ``size`` parameters. Raises `ConfigError`."""
    step: OuterStep = OUTER_STEPS.of(config).load()(config, size)
    return step
