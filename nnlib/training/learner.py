"""What a round of local training starts from, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt

from nnlib.aggregation.average import Partial
from nnlib.aggregation.delta import Delta


class RoundStart(NamedTuple):
    """What a worker starts a round from: the model, shape (partial_layout.size,), and the global epochs to train (see
    `nnlib.run.round_length`). ``round`` only names it in messages. ``residual``: what rounding took from the worker's
    partials before, of the vector's shape and dtype; None without error feedback."""

    vector: npt.NDArray[Any]
    round: int
    epochs: range
    residual: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class LocalResult:
    """A worker's share of a round: the partial, and the mean training loss of each of its epochs. With a
    ``sync.precision`` the partial is what ``delta`` makes of the round's start, and with error feedback ``residual`` is
    what the next round starts with. ``buffers``: the model's, which travel exactly."""

    partial: Partial
    losses: tuple[float, ...]
    rows: int
    evaluations: int
    delta: Delta | None = None
    residual: npt.NDArray[Any] | None = None
    buffers: tuple[npt.NDArray[Any], ...] = ()
