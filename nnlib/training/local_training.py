"""Local training on one worker: a generator that yields a partial and receives the next model.

Rounds mode takes one step of it in each MapReduce job; a long-lived job drives it to the end. All it needs from
outside are the rows and what a round starts from: nothing is remembered that a fresh process could not recompute, so a
retried task gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from nnlib.aggregation.average import Partial
from nnlib.aggregation.delta import Delta
from nnlib.core.arrays import Array
from nnlib.core.errors import DivergedError, MismatchError
from nnlib.core.layout import Layout, aligned_empty
from nnlib.core.liveness import beat, say
from nnlib.core.seeds import Purpose, generator, hash_key
from nnlib.data.batches import CHUNK_ROWS, Batch
from nnlib.data.worker_data import Sample, TrialData
from nnlib.optim import BatchOptimizer, StepOptimizer, build_optimizer
from nnlib.optim.schedules import learning_rate
from nnlib.run.spec import JobSpec, Trial, partial_layout
from nnlib.training.learner import LocalResult, RoundStart


class LocalModel:
    """A trial's model, optimizer and rows on one worker: what each of its rounds works on.

    ``flat`` are the weights in place and ``gradient`` what `bound` computes, both of shape (size,).
    """

    def __init__(self, spec: JobSpec, trial: Trial, worker: int, data: TrialData) -> None:
        """Raises `MismatchError` if the worker's rows are not those of the plan."""
        expected = trial.train_rows[worker]
        if data.train_rows != expected:
            raise MismatchError(
                f"found {data.train_rows} training rows, the plan says {expected}: the dataset changed during the run",
                worker=worker,
                split=trial.split,
            )
        self.trial, self.worker, self._data = trial, worker, data
        self.config = spec.settings(trial)
        model = spec.model(trial)
        self.layout, self._whole = model.layout, partial_layout(spec, trial)
        self.flat = aligned_empty(model.layout.size, model.layout.dtype)
        self.gradient = aligned_empty(model.layout.size, model.layout.dtype)
        self.optimizer = build_optimizer(self.config.train, model.layout)
        rows_at_once = self.config.train.batch_size if self.optimizer.kind == "step" else CHUNK_ROWS
        self.bound = model.bind(self.flat, self.gradient, min(rows_at_once, max(data.train_rows, 1)))
        self.decay = self.config.train.l2 / trial.objective_rows
        self.class_weights: Array | None = None
        if trial.class_weights is not None:
            self.class_weights = np.asarray(trial.class_weights, model.layout.dtype)
        self._stream = worker if self.config.sampling.streams == "independent" else 0

    def begin(self, start: RoundStart) -> Sample:
        """Take what a round starts from; the rows it trains on."""
        say(phase="train", trial=self.trial.index, round=start.round, epoch=start.epochs.start)
        size = self.layout.size
        self.flat[:] = start.vector[:size]
        if self.optimizer.kind == "step":
            if self.config.train.optimizer_state == "average":
                self.optimizer.state[:] = start.vector[size:]
            else:
                self.optimizer.reset()
        seed, trial = self.config.seed, self.trial
        key = hash_key(
            seed, Purpose.SAMPLE, split=trial.split, fold=trial.fold, epoch=start.epochs.start, worker=self._stream
        )
        return self._data.sample(self.config.sampling.fraction, key)

    def batches(self, sample: Sample, epoch: int) -> Iterator[Batch]:
        """One epoch's mini-batches in its own order."""
        seed, trial = self.config.seed, self.trial
        rng = generator(seed, Purpose.ORDER, split=trial.split, fold=trial.fold, epoch=epoch, worker=self._stream)
        sampling = self.config.sampling
        return sample.batches(rng, window_rows=sampling.window_rows, batch_size=self.config.train.batch_size)

    def result(self, start: RoundStart, sample: Sample, losses: Sequence[float], evaluations: int = 0) -> LocalResult:
        """The worker's share of a round, of the weights as they are. Raises `DivergedError`."""
        given = self.flat.copy()
        if self._whole.size > given.size and self.optimizer.kind == "step":
            given = np.concatenate([self.flat, self.optimizer.state])
        if not (np.isfinite(given).all() and all(map(math.isfinite, losses))):
            epoch = start.epochs.stop - 1
            raise DivergedError("a weight is not finite", round=start.round, epoch=epoch, worker=self.worker)
        delta, residual = None, start.residual
        if (precision := self.config.sync.precision) != "exact":
            if residual is None:
                delta = Delta.of(given, start.vector, precision)
            else:
                delta, residual = Delta.with_feedback(given, start.vector, precision, residual)
            given = delta.restored(start.vector)
        partial = Partial(self.worker, sample.rows, given, self._whole.fingerprint)
        return LocalResult(partial, tuple(losses), sample.rows, evaluations, delta, residual)


def local_training(
    spec: JobSpec, trial: Trial, worker: int, data: TrialData, start: RoundStart
) -> Generator[LocalResult, RoundStart, None]:
    """Train round after round: yields this worker's `LocalResult`, is sent what the next round starts from, until that
    has no epochs.

    Raises `DivergedError` naming round, epoch and worker when a loss or a weight is not finite.
    """
    local = LocalModel(spec, trial, worker, data)
    while start.epochs:
        sample = local.begin(start)
        evaluations = 0
        with np.errstate(all="ignore"):  # divergence is found by looking at the numbers
            if local.optimizer.kind == "step":
                losses = []
                for epoch in start.epochs:
                    loss = _epoch(local, local.optimizer, sample, epoch)
                    if not math.isfinite(loss):
                        raise DivergedError(
                            f"the training loss is {loss}", round=start.round, epoch=epoch, worker=worker
                        )
                    losses.append(loss)
                    say(epoch=epoch, loss=loss)
            else:
                losses, evaluations = _minimize(local, local.optimizer, sample, len(start.epochs))
        start = yield local.result(start, sample, losses, evaluations)


def _epoch(local: LocalModel, optimizer: StepOptimizer, sample: Sample, epoch: int) -> float:
    """One pass over the sample in mini-batches; the mean data loss over its rows, as met on the way."""
    bound, flat, gradient, decay, class_weights = (
        local.bound,
        local.flat,
        local.gradient,
        local.decay,
        local.class_weights,
    )
    rate = learning_rate(local.config.train, epoch)
    total = 0.0
    for batch in local.batches(sample, epoch):
        row_weights = None if class_weights is None else class_weights[batch.y]
        total += bound.loss_and_gradient(batch.x, batch.y, row_weights) * len(batch.y)
        optimizer.step(flat, gradient, rate, decay)
        beat()
    return total / sample.rows


def _minimize(local: LocalModel, optimizer: BatchOptimizer, sample: Sample, iterations: int) -> tuple[list[float], int]:
    """Iterations of a batch optimizer on the whole sample; leaves the result in ``flat``.

    The objective is the mean loss over the sample + decay/2 * sum of squared weights (Bishop 2006, eq. 5.112), summed
    over fixed chunks in float64. Returns the objective it reached, and how often it was evaluated.
    """
    flat, gradient, decay, class_weights = local.flat, local.gradient, local.decay, local.class_weights
    chunks = _chunks(sample, local.layout, local.config.runtime.memory_mb << 20)
    weight_ranges = local.layout.weight_ranges()
    total_gradient = np.empty(local.layout.size, np.float64)

    def objective(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        flat[:] = point
        total_gradient[:] = 0.0
        losses = []
        for batch in chunks():
            row_weights = None if class_weights is None else class_weights[batch.y]
            beat()
            share = len(batch.y) / sample.rows
            losses.append(share * local.bound.loss_and_gradient(batch.x, batch.y, row_weights))
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
