"""Some training rows of a trial, for a look at what a net does with them."""

from __future__ import annotations

import numpy as np

from nnlib.data.batches import Batch
from nnlib.data.worker_data import WorkerData
from nnlib.run.spec import JobSpec, Trial


def training_rows(spec: JobSpec, trial: Trial, limit: int) -> Batch:
    """Read the first training rows of a trial in storage order, ``limit`` at most, scaled as it trains on them.

    Reads the shards from the first on, and no more of them than it takes. Raises as `WorkerData` does.
    """
    found: list[Batch] = []
    rows = 0
    for shard in range(len(spec.dataset.shards)):
        with WorkerData(
            spec.dataset,
            (shard,),
            (shard,),
            memory_bytes=spec.config.runtime.memory_mb << 20,
            extra_columns=spec.extra_columns,
        ) as data:
            for chunk in data.trial(trial.rule, trial.scaler, spec.model(trial).layout.dtype).sample().chunks():
                found.append(Batch(*(array[: limit - rows].copy() for array in chunk)))
                rows += len(found[-1].y)
                if rows >= limit:
                    break
        if rows >= limit:
            break
    return Batch(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))
