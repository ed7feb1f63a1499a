"""What the workers of a round give: their records, the average, how far they went apart.

A MapReduce job and a group that all-reduces come by it in different ways; what follows (`jobs.advance`) is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from jobs import tasks
from nnlib.averaging import Partial
from nnlib.errors import JobError, NnjobsError, from_record
from nnlib.metrics import merge_scores
from nnlib.plan import JobSpec


@dataclass
class TrialOutput:
    """What a round says of one trial. ``records`` and ``drift`` (`jobs.tasks.drift_summary`) are by worker; ``average``
    is None where nothing was trained or a worker diverged, ``average_seconds`` the time it took."""

    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    parts: dict[int, Partial] = field(default_factory=dict)
    drift_blocks: dict[int, dict[int, list[list[float]]]] = field(default_factory=dict)
    drift: dict[int, dict[str, float | None]] = field(default_factory=dict)
    stats: dict[int, dict[str, Any]] = field(default_factory=dict)
    average: npt.NDArray[Any] | None = None
    average_seconds: float = 0.0
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def diverged(self) -> NnjobsError | None:
        """The first diverged worker's error."""
        for worker in sorted(self.records):
            if "diverged" in self.records[worker]:
                return from_record(self.records[worker]["diverged"])
        return None

    def join_drift(self) -> None:
        """Each worker's drift over all slices."""
        blocks: dict[int, list[list[float]]] = {}
        for index in sorted(self.drift_blocks):
            for worker, rows in self.drift_blocks[index].items():
                blocks.setdefault(worker, []).extend(rows)
        self.drift = {worker: tasks.drift_summary(rows) for worker, rows in sorted(blocks.items())}

    def join_scores(self, spec: JobSpec) -> None:
        """The scores of all workers' rows together, in worker order."""
        dataset = spec.dataset
        for part in ("test", "validation"):
            scores = [self.records[worker][part] for worker in sorted(self.records)]
            self.scores[part] = merge_scores(scores, dataset.task, len(dataset.classes))


def check_records(spec: JobSpec, outputs: Mapping[int, TrialOutput]) -> None:
    """Every worker must have answered, and all with the same numerics. Raises `JobError`."""
    kernels = set()
    for index, output in outputs.items():
        missing = sorted(set(range(spec.workers)) - set(output.records))
        if missing:
            raise JobError(f"worker {', '.join(map(str, missing))} did not answer", trial=index)
        kernels |= {record["numerics"] for record in output.records.values()}
    if len(kernels) > 1 and spec.config.runtime.numerics == "strict":
        raise JobError(
            f"workers compute different bits (numerics {', '.join(sorted(kernels))}): other numpy or BLAS kernels",
            hint="use equal machines and packages, or set runtime.numerics to loose to give up equal bits",
        )
