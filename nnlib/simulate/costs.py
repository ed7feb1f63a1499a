"""What the cost model is told: the work, the seconds and bytes it costs, and where it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnlib.run.spec import assign_shards

Seconds = npt.NDArray[np.float64]

WIRE_EXPANSION = 4 / 3
"""Bytes on the wire per byte of a partial: base64."""


@dataclass(frozen=True)
class Workload:
    """What a run has to do, whatever the number of workers.

    ``shard_rows`` are the dataset's rows by shard; ``train_rows`` the rows of one pass of one trial over all its
    training rows (after sampling). ``model_bytes`` and ``slices`` are of one trial's flat vector. ``batch_size`` is
    None for optimizers that use all rows at once. ``shared``: every worker trains on all rows.
    """

    shard_rows: tuple[int, ...]
    train_rows: int
    trials: int
    epochs: int
    epochs_per_round: int
    model_bytes: int
    slices: int = 1
    batch_size: int | None = None
    shared: bool = False
    reducers: int | None = None

    @property
    def rows(self) -> int:
        return sum(self.shard_rows)

    @property
    def rounds(self) -> int:
        return -(-self.epochs // self.epochs_per_round)

    def shares(self, workers: int) -> Seconds:
        """Each worker's fraction of the rows, shape (workers,): its shards', or equal parts if there are more workers
        than shards (the data would have to be imported again)."""
        if workers > len(self.shard_rows):
            return np.full(workers, 1.0 / workers)
        plans = assign_shards(self.shard_rows, workers)
        return np.array([sum(self.shard_rows[shard] for shard in plan.shards) for plan in plans]) / self.rows

    def visited(self, workers: int) -> Seconds:
        """Rows each worker reads and scores in a round, over all trials."""
        shares = np.ones(workers) if self.shared else self.shares(workers)
        return self.trials * self.rows * shares

    def trained(self, workers: int) -> Seconds:
        """Rows each worker trains on in one pass, over all trials. A step costs nearly the same for a part of a batch
        as for a whole one, so mini-batches are counted whole."""
        rows = self.train_rows * (np.ones(workers) if self.shared else self.shares(workers))
        if self.batch_size is not None:
            rows = np.ceil(np.round(rows) / self.batch_size) * self.batch_size
        return self.trials * rows

    def reduce_tasks(self, workers: int) -> int:
        return self.reducers or min(workers, self.trials * self.slices)


@dataclass(frozen=True)
class Costs:
    """Seconds on one machine.

    ``startup``: before the first round and after the last job; ``job``: every job, besides its tasks;
    ``dispatch``: what the driver does for each task, one after another; ``task``: start and end of one task, on its
    slot; ``commit``: a checkpoint; ``visit_row``: to read and score a row in one round; ``train_example``: one example
    in one pass; ``encode_byte``, ``average_byte``: a byte of a partial in its mapper, in its reducer. ``contention``:
    how much longer the work of a task takes when ``slots`` run at once.
    """

    train_example: float
    visit_row: float = 0.0
    startup: float = 0.0
    job: float = 0.0
    dispatch: float = 0.0
    task: float = 0.0
    commit: float = 0.0
    encode_byte: float = 0.0
    average_byte: float = 0.0
    contention: float = 1.0
    slots: int = 1

    def slowdown(self, running: int) -> float:
        """Of a task's work when ``running`` tasks run at once: linear up to ``slots``, then constant, for more slots
        than were measured are further machines of the same kind."""
        if self.slots == 1:
            return 1.0
        return 1.0 + (self.contention - 1.0) * min(1.0, (running - 1) / (self.slots - 1))


@dataclass(frozen=True)
class Cluster:
    """Where it runs: ``slots`` tasks at once; ``bandwidth`` in bytes a second and ``latency`` in seconds of each
    machine's link (infinite and 0: what local disks cost is in the measured overheads).

    ``stragglers``: sigma of a lognormal factor (median 1) on every task's time; ``failures``: probability that an
    attempt of a task dies, at a moment uniform in its duration, to be tried again at once up to ``retries`` times.
    """

    slots: int = 1
    bandwidth: float = math.inf
    latency: float = 0.0
    stragglers: float = 0.0
    failures: float = 0.0
    retries: int = 3
    seed: int = 0

    @property
    def random(self) -> bool:
        return self.stragglers > 0.0 or self.failures > 0.0
