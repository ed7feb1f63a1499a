"""One worker's own part in a group: its rows and its running local training, which need nobody else."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from jobs.tasks import Vector, local_round, score_record, worker_data
from nnlib.averaging import Partial
from nnlib.checkpoint import TrialState
from nnlib.data.worker_data import TrialData, WorkerData
from nnlib.errors import NnjobsError
from nnlib.plan import JobSpec, WorkerPlan
from nnlib.training import LocalResult, RoundStart, local_training, partial_layout

Record = dict[str, Any]


class LocalWorker:
    """A worker's rows and its running local training. The rows outlive the generations of its group."""

    def __init__(self, spec: JobSpec, plan: WorkerPlan) -> None:
        self.spec, self.plan, self.number = spec, plan, plan.worker
        self._data: WorkerData | None = None
        self._views: dict[int, TrialData] = {}
        self._training: dict[int, Generator[LocalResult, RoundStart, None]] = {}

    def __enter__(self) -> LocalWorker:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._data is not None:
            self._data.close()

    def restart(self) -> None:
        """Forget the running training: the next round starts from another model than the last one gave."""
        self._training.clear()

    def round(self, index: int, state: TrialState, round_: int, epochs: range) -> tuple[Record, LocalResult | None]:
        """`jobs.tasks.local_round` of a trial."""
        vector = self.vector(index, state)
        start = RoundStart(vector, round_, epochs)
        train: Callable[[], LocalResult]
        if index in self._training:
            running = self._training[index]

            def train() -> LocalResult:
                return running.send(start)
        else:
            fresh = local_training(self.spec, self.spec.trials[index], self.number, self.view(index), start)
            self._training[index], train = fresh, fresh.__next__
        return local_round(self.spec, self.spec.trials[index], self.number, self.view(index), vector, train)

    def scores(self, index: int, state: TrialState) -> Record:
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
        if self._data is None:
            self._data = worker_data(self.spec, self.plan)
        if index not in self._views:
            trial = self.spec.trials[index]
            self._views[index] = self._data.trial(trial.rule, trial.scaler, self.spec.settings(trial).model.dtype)
        return self._views[index]
