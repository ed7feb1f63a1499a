"""One trial on one worker: the plan, the rows and the learner that its scoring and training share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnlib.config.devices import AUTO, CPU, parse_device
from nnlib.config.schema import Config
from nnlib.core.errors import MismatchError
from nnlib.core.layout import Layout
from nnlib.data.feature_converter import Converter
from nnlib.data.worker_data import TrialData, WorkerData
from nnlib.run.spec import JobSpec, Trial, partial_layout
from nnlib.training.build_learner import build_learner
from nnlib.training.learner import Learner, TrainingSetup
from nnlib.training.round_batches import RoundBatches


@dataclass(frozen=True)
class WorkerTrial:
    """One trial on one worker. The learner is built when it is first asked for, and kept for all rounds."""

    spec: JobSpec
    trial: Trial
    worker: int
    rows: TrialData
    converter: Converter | None = None
    """What the learner converts the rows with: see `nnlib.training.learner.TrainingSetup.converter`."""

    @classmethod
    def of(cls, spec: JobSpec, trial: Trial, worker: int, data: WorkerData) -> WorkerTrial:
        """Take the trial's rows from those that the worker holds; as they are stored where a device converts them."""
        rows, config = data.trial(trial.rule, trial.scaler, spec.model(trial).layout.dtype), spec.settings(trial)
        if not _device_converts(config, rows):
            return cls(spec, trial, worker, rows)
        return cls(spec, trial, worker, rows.as_stored(), rows.converter)

    @property
    def config(self) -> Config:
        """The trial's configuration: the run's, with what a sweep changes for it."""
        return self.spec.settings(self.trial)

    @cached_property
    def layout(self) -> Layout:
        """The layout of what the learner loads and returns: see `nnlib.run.spec.partial_layout`."""
        return partial_layout(self.spec, self.trial)

    @cached_property
    def learner(self) -> Learner:
        """The learner of the trial's model."""
        setup = TrainingSetup(self.config, self.trial, self.worker, self.layout, self.converter)
        return build_learner(self.spec.model(self.trial), setup)

    def draw_batches(self, epoch: int) -> RoundBatches:
        """Draw the rows of a round whose first epoch is ``epoch``."""
        return RoundBatches.draw(self.config, self.trial, self.worker, self.rows, epoch)

    def check_rows(self) -> None:
        """Refuse other training rows than the plan has. Raises `MismatchError`."""
        expected = self.trial.train_rows[self.worker]
        if self.rows.train_rows != expected:
            raise MismatchError(
                f"found {self.rows.train_rows} training rows, the plan says {expected}: "
                "the dataset changed during the run",
                worker=self.worker,
                split=self.trial.split,
            )


def _device_converts(config: Config, rows: TrialData) -> bool:
    """Whether a device converts the rows: where that shortens their way, and nothing changes them before."""
    if parse_device(config.runtime.device).kind in (AUTO, CPU) or config.data.augment is not None:
        return False
    if config.train.subnets is not None:  # the whole net is scored on the CPU
        return False
    stored, converter = np.dtype(rows.data.dataset.x_dtype), rows.converter
    return converter.in_dtype and stored.itemsize < converter.dtype.itemsize
