"""Learning rates as pure functions of the global epoch: jumping to epoch 7 equals walking there.

A schedule gets its section, the epoch and the number of epochs, both counted after the warm-up, and returns the factor
of lr.
"""

from __future__ import annotations

import math

from nnlib.config.kinds import SCHEDULES
from nnlib.config.options import (
    CosineOptions,
    ExponentialOptions,
    InverseOptions,
    RateOptions,
    ScheduleOptions,
    StepOptions,
)
from nnlib.config.schema import Train
from nnlib.config.section import options_of


def constant(schedule: ScheduleOptions, epoch: int, epochs: int) -> float:
    """Return 1."""
    return 1.0


def step(schedule: StepOptions, epoch: int, epochs: int) -> float:
    """Return gamma to the number of drops so far, one every ``step_epochs``."""
    return schedule.gamma ** (epoch // schedule.step_epochs)


def exponential(schedule: ExponentialOptions, epoch: int, epochs: int) -> float:
    """Return gamma to the number of the epoch."""
    return schedule.gamma**epoch


def cosine(schedule: CosineOptions, epoch: int, epochs: int) -> float:
    """Return half a cosine from 1 in the first epoch to ``final`` in the last (Loshchilov and Hutter 2017)."""
    way = min(epoch / (epochs - 1), 1.0) if epochs > 1 else 0.0
    return schedule.final + (1.0 - schedule.final) * 0.5 * (1.0 + math.cos(math.pi * way))


def inverse(schedule: InverseOptions, epoch: int, epochs: int) -> float:
    """Return 1 / (1 + gamma * epoch)."""
    return 1.0 / (1.0 + schedule.gamma * epoch)


def learning_rate(train: Train, epoch: int) -> float:
    """Return the rate in global epoch ``epoch`` (0 is the first), of an optimizer that takes steps at a rate.

    ``warmup_epochs`` = n raise it linearly: lr * (epoch + 1) / (n + 1), so epoch n is the first at full rate and the
    first of the schedule.
    """
    lr = options_of(train, RateOptions).lr
    warmup = train.schedule.warmup_epochs
    if epoch < warmup:
        return lr * (epoch + 1) / (warmup + 1)
    factor: float = SCHEDULES.of(train.schedule).load()(train.schedule, epoch - warmup, train.epochs - warmup)
    return lr * factor
