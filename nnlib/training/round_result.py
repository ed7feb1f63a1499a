"""The result of a round before it is committed: the workers' records, the average, how far they went apart.

A MapReduce job and a group that all-reduces make it in different ways; `nnlib.training.advance` goes on the same way
from both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from nnlib.aggregation.average import Partial
from nnlib.aggregation.drift import DriftSummary, drift_summary
from nnlib.core.errors import JobError, NnjobsError
from nnlib.core.run_result import MissingWorkers
from nnlib.data.scaling import FeatureStats
from nnlib.run.round_metrics import TrialScores
from nnlib.run.spec import JobSpec
from nnlib.training.scores import merge_scores
from nnlib.training.worker_record import WorkerRecord


@dataclass
class TrialOutput:
    """One trial's result of a round.

    ``records`` and ``drift`` are by worker, ``parts`` and ``drift_blocks`` (`nnlib.aggregation.drift.drift_rows`) by
    slice, ``stats`` by shard. ``average``, of shape (partial_layout.size,), and ``buffers`` belong together: None and
    () where nothing was trained or a worker diverged. ``average_seconds`` is how long averaging took. ``scores`` are
    those of the model that the round started from, over all workers' rows; None before `join_scores`.
    """

    records: dict[int, WorkerRecord] = field(default_factory=dict)
    parts: dict[int, Partial] = field(default_factory=dict)
    drift_blocks: dict[int, dict[int, list[list[float]]]] = field(default_factory=dict)
    drift: dict[int, DriftSummary] = field(default_factory=dict)
    stats: dict[int, FeatureStats] = field(default_factory=dict)
    average: npt.NDArray[Any] | None = None
    buffers: tuple[npt.NDArray[Any], ...] = ()
    average_seconds: float = 0.0
    scores: TrialScores | None = None

    @property
    def diverged(self) -> NnjobsError | None:
        """The first diverged worker's error."""
        errors = (self.records[worker].diverged for worker in sorted(self.records))
        return next((error for error in errors if error is not None), None)

    def missing(self, spec: JobSpec) -> list[int]:
        """List the workers that reported nothing."""
        return sorted(set(range(spec.workers)) - set(self.records))

    def join_drift(self) -> None:
        """Compute each worker's drift over all slices."""
        blocks: dict[int, list[list[float]]] = {}
        for index in sorted(self.drift_blocks):
            for worker, rows in self.drift_blocks[index].items():
                blocks.setdefault(worker, []).extend(rows)
        self.drift = {worker: drift_summary(rows) for worker, rows in sorted(blocks.items())}

    def join_scores(self, spec: JobSpec, trial: int) -> None:
        """Compute the scores of trial number ``trial`` over all workers' rows, in worker order."""
        dataset, records = spec.dataset, [self.records[worker] for worker in sorted(self.records)]
        self.scores = TrialScores(
            spec.trials[trial].split,
            merge_scores([record.test for record in records], dataset.task, len(dataset.classes)),
            merge_scores([record.validation for record in records], dataset.task, len(dataset.classes)),
            self._unscored(spec, trial),
        )

    def _unscored(self, spec: JobSpec, trial: int) -> MissingWorkers | None:
        missing, rows = self.missing(spec), spec.trials[trial]
        if not missing:
            return None
        test, validation = (sum(of[worker] for worker in missing) for of in (rows.test_rows, rows.validation_rows))
        return MissingWorkers(tuple(missing), test, validation)


def check_records(spec: JobSpec, outputs: Mapping[int, TrialOutput]) -> None:
    """Check that every worker has reported (or a quorum, the same ones in every trial and slice), and all with the same
    numerics. Raises `JobError`."""
    answered = {frozenset(output.records) for output in outputs.values()}
    for index, output in outputs.items():
        missing = output.missing(spec)
        if missing and (len(output.records) < spec.quorum or len(answered) > 1):
            raise JobError(f"worker {', '.join(map(str, missing))} did not answer", trial=index)
        for part, rows in output.drift_blocks.items():
            if output.diverged is None and set(rows) != set(output.records):
                raise JobError(f"slice {part} was averaged over other workers than those that answered", trial=index)
        kernels = {record.numerics for record in output.records.values()}  # a trial's: others may have other models
        if len(kernels) > 1 and spec.config.runtime.numerics == "strict":
            raise JobError(
                f"workers compute different bits (numerics {', '.join(sorted(kernels))}): other numpy, BLAS or torch "
                "kernels",
                hint="use equal machines and packages, or set runtime.numerics to loose to give up equal bits",
            )
