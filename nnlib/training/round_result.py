"""What the workers of a round give: their records, the average, how far they went apart.

A MapReduce job and a group that all-reduces come by it in different ways; what follows (`nnlib.training.advance`) is
the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from nnlib.aggregation.average import Partial
from nnlib.aggregation.drift import drift_summary
from nnlib.core.errors import JobError, NnjobsError, from_record
from nnlib.run.spec import JobSpec
from nnlib.training.scores import merge_scores


@dataclass
class TrialOutput:
    """What a round says of one trial. ``records`` and ``drift`` (`nnlib.aggregation.drift.drift_summary`) are by
    worker; ``average`` and the ``buffers`` belong together: None and () where nothing was trained or a worker diverged.
    ``average_seconds`` is the time that averaging took."""

    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    parts: dict[int, Partial] = field(default_factory=dict)
    drift_blocks: dict[int, dict[int, list[list[float]]]] = field(default_factory=dict)
    drift: dict[int, dict[str, float | None]] = field(default_factory=dict)
    stats: dict[int, dict[str, Any]] = field(default_factory=dict)
    average: npt.NDArray[Any] | None = None
    buffers: tuple[npt.NDArray[Any], ...] = ()
    average_seconds: float = 0.0
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def diverged(self) -> NnjobsError | None:
        """The first diverged worker's error."""
        for worker in sorted(self.records):
            if "diverged" in self.records[worker]:
                return from_record(self.records[worker]["diverged"])
        return None

    def missing(self, spec: JobSpec) -> list[int]:
        """Workers that gave nothing."""
        return sorted(set(range(spec.workers)) - set(self.records))

    def lacks(self, spec: JobSpec, trial: int) -> dict[str, Any]:
        """What metrics say where workers are missing: which, and how many rows went unscored; {} if none is."""
        missing, rows = self.missing(spec), spec.trials[trial]
        if not missing:
            return {}
        test, validation = (sum(of[worker] for worker in missing) for of in (rows.test_rows, rows.validation_rows))
        return {"missing": {"workers": missing, "test_rows": test, "validation_rows": validation}}

    def join_drift(self) -> None:
        """Each worker's drift over all slices."""
        blocks: dict[int, list[list[float]]] = {}
        for index in sorted(self.drift_blocks):
            for worker, rows in self.drift_blocks[index].items():
                blocks.setdefault(worker, []).extend(rows)
        self.drift = {worker: drift_summary(rows) for worker, rows in sorted(blocks.items())}

    def join_scores(self, spec: JobSpec) -> None:
        """The scores of all workers' rows together, in worker order."""
        dataset = spec.dataset
        for part in ("test", "validation"):
            scores = [self.records[worker][part] for worker in sorted(self.records)]
            self.scores[part] = merge_scores(scores, dataset.task, len(dataset.classes))


def check_records(spec: JobSpec, outputs: Mapping[int, TrialOutput]) -> None:
    """Every worker (or a quorum, the same ones in every trial and slice) must have answered, and all with the same
    numerics. Raises `JobError`."""
    kernels = set()
    answered = {frozenset(output.records) for output in outputs.values()}
    for index, output in outputs.items():
        missing = output.missing(spec)
        if missing and (len(output.records) < spec.quorum or len(answered) > 1):
            raise JobError(f"worker {', '.join(map(str, missing))} did not answer", trial=index)
        for part, rows in output.drift_blocks.items():
            if output.diverged is None and set(rows) != set(output.records):
                raise JobError(f"slice {part} was averaged over other workers than those that answered", trial=index)
        kernels |= {record["numerics"] for record in output.records.values()}
    if len(kernels) > 1 and spec.config.runtime.numerics == "strict":
        raise JobError(
            f"workers compute different bits (numerics {', '.join(sorted(kernels))}): other numpy or BLAS kernels",
            hint="use equal machines and packages, or set runtime.numerics to loose to give up equal bits",
        )
