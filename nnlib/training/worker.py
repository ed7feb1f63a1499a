"""One worker's part in a group: its rows and its running local training, which need no other worker."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator, Mapping

import numpy as np

from nnlib.aggregation.average import Partial
from nnlib.core.arrays import Array, Vector
from nnlib.core.errors import MismatchError, NnjobsError
from nnlib.core.layout import ModelState
from nnlib.data.worker_data import WorkerData
from nnlib.run.checkpoint import Checkpoint, TrialState
from nnlib.run.spec import JobSpec, WorkerPlan, kept_optimizer_size, partial_layout
from nnlib.training.build_learner import build_learner
from nnlib.training.learner import Learner, TrainingSetup
from nnlib.training.local_result import LocalResult, RoundStart
from nnlib.training.local_training import local_training
from nnlib.training.worker_record import WorkerRecord
from nnlib.training.worker_round import detailed_parts, local_round, score_record, worker_data
from nnlib.training.worker_trial import WorkerTrial


def prepare_learners(spec: JobSpec) -> None:
    """Import what the trials' learners need, before they need it: a process that forks its workers does so once."""
    for learner in _learners(spec):
        learner.prepare()


def numerics_here(spec: JobSpec) -> set[str]:
    """Return the fingerprints of the bits that the trials' learners compute in this process."""
    return {learner.numerics() for learner in _learners(spec)}


def _learners(spec: JobSpec) -> Iterator[Learner]:
    """A learner of each trial, without numbers."""
    for trial in spec.trials:
        setup = TrainingSetup(spec.settings(trial), trial, 0, partial_layout(spec, trial))
        yield build_learner(spec.model(trial), setup)


class LocalWorker:
    """A worker's rows and its running local training. The rows outlive the generations of its group."""

    def __init__(self, spec: JobSpec, plan: WorkerPlan) -> None:
        self.spec, self.plan, self.number = spec, plan, plan.worker
        self._data: WorkerData | None = None
        self._trials: dict[int, WorkerTrial] = {}
        self._preparing: threading.Thread | None = None
        self._training: dict[int, Generator[LocalResult, RoundStart, None]] = {}
        self.residuals: dict[int, Vector] = {}
        """By trial, what rounding took from this worker's last partial; empty without error feedback."""
        self.optimizers: dict[int, Vector] = {}
        """By trial, the state of this worker's optimizer, where it keeps that; shape (0,) before the first round."""

    def __enter__(self) -> LocalWorker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._join_preparation()
        if self._data is not None:
            self._data.close()

    def prepare(self) -> None:
        """Begin to read the rows and to import what the learners need, in a thread, while the worker waits for others.

        An error is raised again, by `trial`, when the rows are asked for.
        """
        self._preparing = threading.Thread(target=self._prepare, name="prepare", daemon=True)
        self._preparing.start()

    def _prepare(self) -> None:
        with contextlib.suppress(NnjobsError):
            for trial in self.spec.trials:
                self._trial(trial.index)
            prepare_learners(self.spec)

    def _join_preparation(self) -> None:
        if self._preparing is not None:
            self._preparing.join()
            self._preparing = None

    def restart(self, checkpoint: Checkpoint) -> None:
        """Forget the running training: the next round starts from ``checkpoint``.

        Raises `MismatchError` where it lacks what this worker keeps for itself.
        """
        self._training.clear()
        self.residuals.clear()
        self.optimizers.clear()
        for index in checkpoint.active:
            trial = self.spec.trials[index]
            layout, size = partial_layout(self.spec, trial), kept_optimizer_size(self.spec, trial)
            if self.spec.config.sync.error_feedback:
                self.residuals[index] = np.zeros(layout.size, layout.dtype)
            if size:
                self.optimizers[index] = np.empty(0, layout.dtype)
            if checkpoint.round == 0:
                continue
            if self.spec.config.sync.error_feedback:
                expected = "residuals", layout.size, layout.dtype
                self.residuals[index] = self._kept(checkpoint, checkpoint.kept.residuals, index, *expected)
            if size:
                expected = "optimizers' states", size, layout.dtype
                self.optimizers[index] = self._kept(checkpoint, checkpoint.kept.optimizers, index, *expected)

    def _kept(
        self, checkpoint: Checkpoint, kept: Mapping[int, Array], index: int, what: str, size: int, dtype: str
    ) -> Vector:
        """This worker's row of what all workers have kept for a trial."""
        rows = kept.get(index)
        if rows is None or rows.shape != (self.spec.workers, size) or rows.dtype != dtype:
            raise MismatchError(
                f"round {checkpoint.round} does not have the {what} of {self.spec.workers} workers", trial=index
            )
        row: Vector = rows[self.number].copy()
        return row

    def run_round(
        self, index: int, state: TrialState, round_: int, epochs: range
    ) -> tuple[WorkerRecord, LocalResult | None]:
        """Score a trial's model, then train it: see `nnlib.training.worker_round.local_round`."""
        model = self.start_model(index, state)
        return local_round(self.trial(index), model, lambda: self.train(index, model, round_, epochs))

    def train(self, index: int, model: ModelState, round_: int, epochs: range) -> LocalResult:
        """Train a trial from ``model``. Raises `DivergedError`."""
        start = self.round_start(index, model, round_, epochs)
        if index in self._training:
            result = self._training[index].send(start)
        else:
            fresh = local_training(self.trial(index), start)
            self._training[index], result = fresh, next(fresh)
        self.keep(index, result)
        return result

    def round_start(self, index: int, model: ModelState, round_: int, epochs: range) -> RoundStart:
        """Make what a trial's round starts from: ``model``, and what this worker has kept."""
        return RoundStart(model, round_, epochs, self.residuals.get(index), self.optimizers.get(index))

    def keep(self, index: int, result: LocalResult) -> None:
        """Keep of a trial's result what this worker alone goes on with."""
        if result.residual is not None:
            self.residuals[index] = result.residual
        if result.optimizer is not None:
            self.optimizers[index] = result.optimizer

    def score(self, index: int, state: TrialState) -> WorkerRecord:
        """Score a trial's model in detail on this worker's held-out rows, as for a final result: see
        `nnlib.training.worker_round.score_record`."""
        return score_record(self.trial(index), state.model)

    def score_round(self, index: int, state: TrialState) -> WorkerRecord:
        """Score a trial's model on this worker's held-out rows as every round does: in detail only where early
        stopping needs it."""
        work = self.trial(index)
        return score_record(work, state.model, detailed_parts(work.config))

    def locate(self, error: NnjobsError) -> NnjobsError:
        """Name this worker in its error, where none is named."""
        error.where.setdefault("worker", self.number)
        return error

    def empty_partial(self, index: int, state: TrialState) -> Partial:
        """Make a partial of no examples, for a trial that diverged here."""
        vector = self.start_model(index, state).vector
        return Partial(self.number, 0, vector, partial_layout(self.spec, self.spec.trials[index]).fingerprint)

    def start_model(self, index: int, state: TrialState) -> ModelState:
        """Join what a trial enters a round with: weights, behind them averaged optimizer state; and buffers."""
        if partial_layout(self.spec, self.spec.trials[index]).size > state.weights.size:
            return ModelState(np.concatenate([state.weights, state.optimizer]), state.buffers)
        return state.model

    def trial(self, index: int) -> WorkerTrial:
        """The trial's rows and learner on this worker, read when first asked for."""
        self._join_preparation()
        return self._trial(index)

    def _trial(self, index: int) -> WorkerTrial:
        if self._data is None:
            self._data = worker_data(self.spec, self.plan)
        if index not in self._trials:
            self._trials[index] = WorkerTrial.of(self.spec, self.spec.trials[index], self.number, self._data)
        return self._trials[index]
