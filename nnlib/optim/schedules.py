"""Learning rates as pure functions of the position in a run: jumping to epoch 7 equals walking there.

A schedule gets its section, the position and that of the last epoch, and returns the factor of lr. Positions are epochs
since the end of the warm-up. With `train.schedule.by: step` they have fractions, step / steps of the epoch on this
worker, and the last one is that of the last step.
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


def constant(schedule: ScheduleOptions, position: float, last: float) -> float:
    """Return 1."""
    return 1.0


def step(schedule: StepOptions, position: float, last: float) -> float:
    """Return gamma to the number of drops so far, one every ``step_epochs``."""
    factor: float = schedule.gamma ** (position // schedule.step_epochs)
    return factor


def exponential(schedule: ExponentialOptions, position: float, last: float) -> float:
    """Return gamma to the position."""
    factor: float = schedule.gamma**position
    return factor


def cosine(schedule: CosineOptions, position: float, last: float) -> float:
    """Return half a cosine from 1 at position 0 to ``final`` at the last (Loshchilov and Hutter 2017)."""
    way = min(position / last, 1.0) if last > 0.0 else 0.0
    return schedule.final + (1.0 - schedule.final) * 0.5 * (1.0 + math.cos(math.pi * way))


def inverse(schedule: InverseOptions, position: float, last: float) -> float:
    """Return 1 / (1 + gamma * position)."""
    return 1.0 / (1.0 + schedule.gamma * position)


def learning_rate(train: Train, epoch: int, step: int = 0, steps: int = 1) -> float:
    """Return the rate in step ``step`` of the ``steps`` of global epoch ``epoch`` (0 is the first of both), of an
    optimizer that takes steps at a rate. Unless the schedule is by step, all steps of an epoch have the same.

    A warm-up of n epochs (by step: of their steps, or of ``warmup_steps``) raises it linearly, lr * (k + 1) / (n + 1)
    in the k-th, so that the one after is the first at full rate and the first of the schedule.
    """
    schedule, lr = train.schedule, options_of(train, RateOptions).lr
    if schedule.by == "epoch":
        step, steps = 0, 1
    done, warmup = epoch * steps + step, schedule.warmup_epochs * steps + schedule.warmup_steps
    if done < warmup:
        return lr * (done + 1) / (warmup + 1)
    position, last = (done - warmup) / steps, (train.epochs * steps - warmup - 1) / steps
    factor: float = SCHEDULES.of(schedule).load()(schedule, position, last)
    return lr * factor
