"""One worker's own part in a group: its rows and its running local training, which need nobody else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator

import numpy as np

from nnlib.aggregation.average import Partial
from nnlib.config.kinds import OPTIMIZERS
from nnlib.core.arrays import Vector
from nnlib.core.errors import MismatchError, NnjobsError
from nnlib.data.worker_data import TrialData, WorkerData
from nnlib.run.checkpoint import Checkpoint, TrialState
from nnlib.run.spec import JobSpec, WorkerPlan, partial_layout
from nnlib.training.learner import LocalResult, RoundStart
from nnlib.training.local_training import local_training
from nnlib.training.worker_record import WorkerRecord
from nnlib.training.worker_round import local_round, score_record, worker_data


def import_optimizers(spec: JobSpec) -> None:
    """Load what the trials' optimizers need, before it is needed."""
    for trial in spec.trials:
        OPTIMIZERS.of(spec.settings(trial).train).load_packages()


class LocalWorker:
    """A worker's rows and its running local training. The rows outlive the generations of its group."""

    def __init__(self, spec: JobSpec, plan: WorkerPlan) -> None:
        self.spec, self.plan, self.number = spec, plan, plan.worker
        self._data: WorkerData | None = None
        self._views: dict[int, TrialData] = {}
        self._preparing: threading.Thread | None = None
        self._training: dict[int, Generator[LocalResult, RoundStart, None]] = {}
        self.residuals: dict[int, Vector] = {}
        """By trial, what rounding took from this worker's last partial; empty without error feedback."""

    def __enter__(self) -> LocalWorker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._prepared()
        if self._data is not None:
            self._data.close()

    def prepare(self) -> None:
        """Begin to read the rows and to load what the optimizers need, in a thread: who has to wait for others need not
        do so afterwards. What goes wrong is met again, and raised, where the rows are asked for."""
        self._preparing = threading.Thread(target=self._prepare, name="prepare", daemon=True)
        self._preparing.start()

    def _prepare(self) -> None:
        with contextlib.suppress(NnjobsError):
            for trial in self.spec.trials:
                self._view(trial.index)
            import_optimizers(self.spec)

    def _prepared(self) -> None:
        if self._preparing is not None:
            self._preparing.join()
            self._preparing = None

    def restart(self, checkpoint: Checkpoint) -> None:
        """Forget the running training: the next round starts from ``checkpoint``, not from what the last one gave.

        Raises `MismatchError` where it lacks this worker's residuals.
        """
        self._training.clear()
        self.residuals.clear()
        if self.spec.config.sync.error_feedback:
            for index in checkpoint.active:
                self.residuals[index] = self._residual(index, checkpoint)

    def _residual(self, index: int, checkpoint: Checkpoint) -> Vector:
        layout = partial_layout(self.spec, self.spec.trials[index])
        if checkpoint.round == 0:
            return np.zeros(layout.size, layout.dtype)
        rows = checkpoint.residuals.get(index)
        if rows is None or rows.shape != (self.spec.workers, layout.size) or rows.dtype != layout.dtype:
            raise MismatchError(
                f"round {checkpoint.round} does not have the residuals of {self.spec.workers} workers", trial=index
            )
        own: Vector = rows[self.number].copy()
        return own

    def round(
        self, index: int, state: TrialState, round_: int, epochs: range
    ) -> tuple[WorkerRecord, LocalResult | None]:
        """`nnlib.training.worker_round.local_round` of a trial."""
        vector = self.vector(index, state)
        trial, view = self.spec.trials[index], self.view(index)
        return local_round(
            self.spec, trial, self.number, view, vector, lambda: self.train(index, vector, round_, epochs)
        )

    def train(self, index: int, vector: Vector, round_: int, epochs: range) -> LocalResult:
        """Train a trial from ``vector``. Raises `DivergedError`."""
        start = RoundStart(vector, round_, epochs, self.residuals.get(index))
        if index in self._training:
            result = self._training[index].send(start)
        else:
            fresh = local_training(self.spec, self.spec.trials[index], self.number, self.view(index), start)
            self._training[index], result = fresh, next(fresh)
        if result.residual is not None:
            self.residuals[index] = result.residual
        return result

    def scores(self, index: int, state: TrialState) -> WorkerRecord:
        """The record of a trial's model on this worker's held-out rows."""
        return score_record(self.spec, self.spec.trials[index], self.number, self.view(index), state.weights)

    def located(self, error: NnjobsError) -> NnjobsError:
        """An error of this worker, which says so."""
        error.where.setdefault("worker", self.number)
        return error

    def nothing(self, index: int, state: TrialState) -> Partial:
        """A partial of no examples, of a trial that diverged here."""
        vector = self.vector(index, state)
        return Partial(self.number, 0, vector, partial_layout(self.spec, self.spec.trials[index]).fingerprint)

    def vector(self, index: int, state: TrialState) -> Vector:
        """What a trial enters a round with: weights, then averaged optimizer state."""
        if partial_layout(self.spec, self.spec.trials[index]).size > state.weights.size:
            return np.concatenate([state.weights, state.optimizer])
        return state.weights

    def view(self, index: int) -> TrialData:
        """A trial's rows."""
        self._prepared()
        return self._view(index)

    def _view(self, index: int) -> TrialData:
        if self._data is None:
            self._data = worker_data(self.spec, self.plan)
        if index not in self._views:
            trial = self.spec.trials[index]
            self._views[index] = self._data.trial(trial.rule, trial.scaler, self.spec.settings(trial).model.dtype)
        return self._views[index]
