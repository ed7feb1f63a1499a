"""Predicts single test rows for a report with the final model: pictures of misread rows, predicted values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array
from nnlib.data.split.rule import TEST
from nnlib.data.worker_data import WorkerData
from nnlib.evaluation.statistics import Confused
from nnlib.inference.trained_model import TrainedModel
from nnlib.report.collect import Series
from nnlib.training.build_learner import load_learner

LOOKED_AT = 50_000
"""Test rows that are predicted for pictures and scatter plots, at most."""
PICTURES = 4
"""Misread rows shown of each pair of classes."""
POINTS = 2000
"""Points of a scatter plot, at most."""


@dataclass(frozen=True)
class Misread:
    """A test row that the model takes for another class.

    ``row`` is its id, ``true`` and ``predicted`` are indices of classes, ``confidence`` is the probability of the wrong
    one. ``picture`` has its features as levels 0..255, shape (height, width), or (height, width, 3) of colours.
    """

    row: int
    true: int
    predicted: int
    confidence: float
    picture: npt.NDArray[np.uint8]


def misread_rows(series: Series, pairs: Sequence[Confused]) -> list[Misread]:
    """Return, for each pair of classes in order, the errors of which the series' first model is surest.

    [] if the dataset's rows are no pictures. Raises the errors of reading it.
    """
    shape = series.run.spec.dataset.shape
    if not is_picture(shape):
        return []
    wanted = {(pair.true, pair.predicted): rank for rank, pair in enumerate(pairs)}
    surest: dict[int, list[tuple[float, int, Array]]] = {}
    low, high = np.inf, -np.inf
    for values, outputs, y, row in _predicted(series):
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        guess = np.argmax(outputs, axis=1)
        for index in np.flatnonzero(guess != y).tolist():
            rank = wanted.get((int(y[index]), int(guess[index])))
            if rank is not None:
                sure = float(outputs[index, guess[index]])
                surest.setdefault(rank, []).append((-sure, int(row[index]), values[index].copy()))
                surest[rank] = sorted(surest[rank], key=lambda each: each[:2])[:PICTURES]
    span = max(high - low, 1e-30)
    return [
        Misread(
            row,
            pairs[rank].true,
            pairs[rank].predicted,
            -minus,
            _picture(np.round((values.astype(np.float64) - low) / span * 255).astype(np.uint8), shape),
        )
        for rank, rows in sorted(surest.items())
        for minus, row, values in rows
    ]


def is_picture(shape: tuple[int, ...]) -> bool:
    """Return whether rows of a shape can be drawn: (height, width), or (3, height, width) of colours."""
    return (len(shape) == 2 or (len(shape) == 3 and shape[0] == 3)) and min(shape[-2:]) >= 2


def _picture(levels: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    levels = levels.reshape(shape)
    return levels if len(shape) == 2 else levels.transpose(1, 2, 0)


def scatter(series: Series) -> tuple[Array, Array]:
    """Return true and predicted values, each of shape (n,), of up to `POINTS` test rows of the series' first model."""
    truth, guess = [np.zeros(0)], [np.zeros(0)]
    for _, outputs, y, _ in _predicted(series):
        truth.append(y.astype(np.float64))
        guess.append(outputs[:, 0].astype(np.float64))
    true, predicted = np.concatenate(truth), np.concatenate(guess)
    every = max(1, -(-len(true) // POINTS))
    return true[::every], predicted[::every]


def _predicted(series: Series) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield feature values, outputs, targets and ids of the first trial's test rows, in chunks that are used again."""
    spec, trial = series.run.spec, series.trials[0]
    state = TrainedModel.load(series.run.directory.address, trial=trial.index).state
    learner = load_learner(spec.model(trial), state, trial.target)
    memory = spec.config.runtime.memory_mb << 20
    shards = range(len(spec.dataset.shards))
    with WorkerData(spec.dataset, (), shards, memory_bytes=memory, extra_columns=spec.extra_columns) as data:
        scaled = data.trial(trial.rule, trial.scaler, state.vector.dtype).score_batches(TEST)
        plain = data.trial(trial.rule, None, np.float32).score_batches(TEST)
        seen = 0
        for batch, values in zip(scaled, plain, strict=True):
            yield values.x, learner.outputs(batch.x), batch.y, batch.row
            seen += len(batch.y)
            if seen >= LOOKED_AT:
                return
