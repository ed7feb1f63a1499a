"""Learning rates as pure functions of the global epoch: jumping to epoch 7 equals walking there."""

from __future__ import annotations

import math
from collections.abc import Callable

from nnlib.config.schema import Schedule, Train


def _constant(schedule: Schedule, epoch: int, epochs: int) -> float:
    return 1.0


def _step(schedule: Schedule, epoch: int, epochs: int) -> float:
    return schedule.gamma ** (epoch // schedule.step_epochs)


def _exponential(schedule: Schedule, epoch: int, epochs: int) -> float:
    return schedule.gamma**epoch


def _cosine(schedule: Schedule, epoch: int, epochs: int) -> float:
    """Half a cosine from 1 in the first epoch to ``final`` in the last (Loshchilov and Hutter 2017)."""
    way = min(epoch / (epochs - 1), 1.0) if epochs > 1 else 0.0
    return schedule.final + (1.0 - schedule.final) * 0.5 * (1.0 + math.cos(math.pi * way))


def _inverse(schedule: Schedule, epoch: int, epochs: int) -> float:
    return 1.0 / (1.0 + schedule.gamma * epoch)


SCHEDULES: dict[str, Callable[[Schedule, int, int], float]] = {
    "constant": _constant,
    "step": _step,
    "exponential": _exponential,
    "cosine": _cosine,
    "inverse": _inverse,
}
"""Name -> factor of lr at an epoch, both epoch and number of epochs counted after the warm-up."""


def learning_rate(train: Train, epoch: int) -> float:
    """The rate in global epoch ``epoch`` (0 is the first).

    ``warmup_epochs`` = n raise it linearly: lr * (epoch + 1) / (n + 1), so epoch n is the first at full rate and the
    first of the schedule.
    """
    warmup = train.schedule.warmup_epochs
    if epoch < warmup:
        return train.lr * (epoch + 1) / (warmup + 1)
    return train.lr * SCHEDULES[train.schedule.kind](train.schedule, epoch - warmup, train.epochs - warmup)
