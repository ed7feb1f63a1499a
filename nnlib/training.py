"""Local training on one worker: a generator that yields a partial and receives the next model.

Rounds mode takes one step of it in each MapReduce job; a long-lived job can drive it to the end. All it needs from
outside are the rows and what a round starts from: nothing is remembered that a fresh process could not recompute, so a
retried task gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnlib.averaging import Partial
from nnlib.config.schema import Config
from nnlib.data.worker_data import CHUNK_ROWS, Batch, Sample, TrialData
from nnlib.errors import DivergedError, MismatchError
from nnlib.layout import Layout, aligned_empty
from nnlib.models.protocol import Array, BoundModel
from nnlib.optim import BatchOptimizer, StepOptimizer, build_optimizer
from nnlib.optim.schedules import learning_rate
from nnlib.plan import JobSpec, Trial
from nnlib.pulse import beat, say
from nnlib.seeds import Purpose, generator, hash_key


class RoundStart(NamedTuple):
    """What a worker starts a round from: the model, shape (partial_layout.size,), and the global epochs to train (see
    `nnlib.periods`). ``round`` only names it in messages."""

    vector: npt.NDArray[Any]
    round: int
    epochs: range


@dataclass(frozen=True)
class LocalResult:
    """A worker's share of a round: the partial, and the mean training loss of each of its epochs."""

    partial: Partial
    losses: tuple[float, ...]
    rows: int
    evaluations: int


def partial_layout(spec: JobSpec, trial: Trial) -> Layout:
    """The layout of what travels: the model's parameters and, if averaged, the local optimizer's state."""
    config, model = spec.settings(trial), spec.model(trial)
    if config.train.optimizer_state == "reset":
        return model.layout
    optimizer = build_optimizer(config.train, model.layout)
    return model.layout.extended(optimizer.state_arrays) if optimizer.kind == "step" else model.layout


def initial_vector(spec: JobSpec, trial: Trial) -> npt.NDArray[Any]:
    """The weights a trial starts from: decided by the seed, its split and its fold, not by the number of workers."""
    rng = generator(spec.config.seed, Purpose.INIT, split=trial.split, fold=trial.fold)
    return spec.model(trial).initial(rng)


def local_training(
    spec: JobSpec, trial: Trial, worker: int, data: TrialData, start: RoundStart
) -> Generator[LocalResult, RoundStart, None]:
    """Train round after round: yields this worker's `LocalResult`, is sent what the next round starts from, until that
    has no epochs.

    Raises `DivergedError` naming round, epoch and worker when a loss or a weight is not finite.
    """
    config = spec.settings(trial)
    expected = trial.train_rows[worker]
    if data.train_rows != expected:
        raise MismatchError(
            f"found {data.train_rows} training rows, the plan says {expected}: the dataset changed during the run",
            worker=worker,
            split=trial.split,
        )
    model = spec.model(trial)
    layout = partial_layout(spec, trial)
    size = model.layout.size
    flat = aligned_empty(size, model.layout.dtype)
    gradient = aligned_empty(size, model.layout.dtype)
    optimizer = build_optimizer(config.train, model.layout)
    rows_at_once = config.train.batch_size if optimizer.kind == "step" else CHUNK_ROWS
    bound = model.bind(flat, gradient, min(rows_at_once, max(data.train_rows, 1)))
    stream = worker if config.sampling.streams == "independent" else 0
    decay = config.train.l2 / trial.objective_rows
    weights = None
    if trial.class_weights is not None:
        weights = np.asarray(trial.class_weights, model.layout.dtype)

    while start.epochs:
        vector, round_, epochs = start
        say(phase="train", trial=trial.index, round=round_, epoch=epochs.start)
        flat[:] = vector[:size]
        key = hash_key(
            config.seed, Purpose.SAMPLE, split=trial.split, fold=trial.fold, epoch=epochs.start, worker=stream
        )
        sample = data.sample(config.sampling.fraction, key)
        evaluations = 0
        with np.errstate(all="ignore"):  # divergence is found by looking at the numbers, below
            if optimizer.kind == "step":
                if config.train.optimizer_state == "average":
                    optimizer.state[:] = vector[size:]
                else:
                    optimizer.reset()
                losses = []
                for epoch in epochs:
                    rng = generator(
                        config.seed, Purpose.ORDER, split=trial.split, fold=trial.fold, epoch=epoch, worker=stream
                    )
                    rate = learning_rate(config.train, epoch)
                    loss = _epoch(config, sample, bound, optimizer, flat, gradient, rng, rate, decay, weights)
                    if not math.isfinite(loss):
                        raise DivergedError(f"the training loss is {loss}", round=round_, epoch=epoch, worker=worker)
                    losses.append(loss)
                    say(epoch=epoch, loss=loss)
            else:
                losses, evaluations = _minimize(
                    sample,
                    bound,
                    optimizer,
                    flat,
                    gradient,
                    model.layout,
                    len(epochs),
                    decay,
                    weights,
                    config.runtime.memory_mb << 20,
                )
        given = flat.copy()
        if layout.size > size and optimizer.kind == "step":
            given = np.concatenate([flat, optimizer.state])
        if not (np.isfinite(given).all() and all(map(math.isfinite, losses))):
            raise DivergedError("a weight is not finite", round=round_, epoch=epochs.stop - 1, worker=worker)
        partial = Partial(worker, sample.rows, given, layout.fingerprint)
        start = yield LocalResult(partial, tuple(losses), sample.rows, evaluations)


def _epoch(
    config: Config,
    sample: Sample,
    bound: BoundModel,
    optimizer: StepOptimizer,
    flat: Array,
    gradient: Array,
    rng: np.random.Generator,
    rate: float,
    decay: float,
    class_weights: Array | None,
) -> float:
    """One pass over the sample in mini-batches; the mean data loss over its rows, as met on the way."""
    total = 0.0
    for batch in sample.batches(rng, window_rows=config.sampling.window_rows, batch_size=config.train.batch_size):
        row_weights = None if class_weights is None else class_weights[batch.y]
        total += bound.loss_and_gradient(batch.x, batch.y, row_weights) * len(batch.y)
        optimizer.step(flat, gradient, rate, decay)
        beat()
    return total / sample.rows


def _minimize(
    sample: Sample,
    bound: BoundModel,
    optimizer: BatchOptimizer,
    flat: Array,
    gradient: Array,
    layout: Layout,
    iterations: int,
    decay: float,
    class_weights: Array | None,
    memory_bytes: int,
) -> tuple[list[float], int]:
    """Iterations of a batch optimizer on the whole sample; leaves the result in ``flat``.

    The objective is the mean loss over the sample + decay/2 * sum of squared weights (Bishop 2006, eq. 5.112), summed
    over fixed chunks in float64. Returns the objective it reached, and how often it was evaluated.
    """
    chunks = _chunks(sample, layout, memory_bytes)
    weight_ranges = layout.weight_ranges()
    total_gradient = np.empty(layout.size, np.float64)

    def objective(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        flat[:] = point
        total_gradient[:] = 0.0
        losses = []
        for batch in chunks():
            row_weights = None if class_weights is None else class_weights[batch.y]
            beat()
            share = len(batch.y) / sample.rows
            losses.append(share * bound.loss_and_gradient(batch.x, batch.y, row_weights))
            np.add(total_gradient, gradient if share == 1.0 else share * gradient.astype(np.float64), total_gradient)
        loss = math.fsum(losses)
        if decay:
            for part in weight_ranges:
                loss += 0.5 * decay * float(np.dot(point[part], point[part]))
                total_gradient[part] += decay * point[part]
        return loss, total_gradient.copy()

    start = flat.astype(np.float64)
    result = optimizer.minimize(objective, start, iterations)
    flat[:] = result.point
    return [result.loss], result.evaluations


def _chunks(sample: Sample, layout: Layout, memory_bytes: int) -> Callable[[], Iterable[Batch]]:
    """A function that starts a pass over the sample's fixed chunks; they are held, converted, if they fit."""
    first = next(iter(sample.chunks(CHUNK_ROWS)))
    if sample.rows * first.x.shape[1] * layout.itemsize > memory_bytes:
        return lambda: sample.chunks(CHUNK_ROWS)
    held = [batch._replace(x=batch.x.copy()) for batch in sample.chunks(CHUNK_ROWS)]
    return lambda: held
