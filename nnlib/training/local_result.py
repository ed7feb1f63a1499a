"""What a round of local training starts from, and what a worker makes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnlib.aggregation.average import Partial
from nnlib.aggregation.delta import Delta
from nnlib.core.errors import DivergedError
from nnlib.core.layout import ModelState
from nnlib.training.worker_trial import WorkerTrial


class RoundStart(NamedTuple):
    """What a worker starts a round from.

    ``model``: its vector has shape (partial_layout.size,). ``round`` only names the round in messages. ``epochs``: the
    global epochs to train (see `nnlib.run.round_length`). ``residual``: what rounding took from the worker's partials
    before, of the vector's shape and dtype; None without error feedback. ``optimizer``: the state of the worker's
    optimizer, shape (0,) before the first round; None where it is not kept.
    """

    model: ModelState
    round: int
    epochs: range
    residual: npt.NDArray[Any] | None = None
    optimizer: npt.NDArray[Any] | None = None

    @property
    def loaded(self) -> ModelState:
        """What the learner loads: the model, behind its weights the state of the optimizer."""
        if self.optimizer is None or not self.optimizer.size:
            return self.model
        return self.model._replace(vector=np.concatenate([self.model.vector, self.optimizer]))


@dataclass(frozen=True)
class LocalResult:
    """A worker's part of a round: the partial, and the mean training loss of each of its epochs (of all of them
    together where the optimizer minimizes).

    With a ``sync.precision`` the partial is what ``delta`` makes of the round's start; with error feedback the next
    round starts with ``residual``. ``buffers``: the model's, which travel exactly. ``optimizer``: the state of the
    worker's optimizer, where it keeps that.
    """

    partial: Partial
    losses: tuple[float, ...]
    rows: int
    evaluations: int
    delta: Delta | None = None
    residual: npt.NDArray[Any] | None = None
    buffers: tuple[npt.NDArray[Any], ...] = ()
    optimizer: npt.NDArray[Any] | None = None


def local_result(
    work: WorkerTrial, start: RoundStart, rows: int, losses: Sequence[float], evaluations: int = 0
) -> LocalResult:
    """Make a worker's result of its learner's state after a round on ``rows`` rows; with ``sync.precision`` round its
    difference from the start.

    Raises `DivergedError` if a loss or a number of the state is not finite.
    """
    state = work.learner.state()
    weights = state.vector
    segments = zip(work.layout.segments, (weights, *state.buffers), strict=True)
    computed = [vector for segment, vector in segments if segment.rule != "keep"]
    if not (all(np.isfinite(vector).all() for vector in computed) and all(map(math.isfinite, losses))):
        epoch = start.epochs.stop - 1
        raise DivergedError("a weight is not finite", round=start.round, epoch=epoch, worker=work.worker)
    delta, residual = None, start.residual
    if (precision := work.config.sync.precision) != "exact":
        if residual is None:
            delta = Delta.of(weights, start.model.vector, precision)
        else:
            delta, residual = Delta.with_feedback(weights, start.model.vector, precision, residual)
        weights = delta.restored(start.model.vector)
    optimizer = None if start.optimizer is None else work.learner.optimizer_state()
    partial = Partial(work.worker, rows, weights, work.layout.fingerprint)
    return LocalResult(partial, tuple(losses), rows, evaluations, delta, residual, state.buffers, optimizer)
