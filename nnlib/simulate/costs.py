"""The inputs of the cost model: the work of a run, what that work costs in seconds, and where it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnlib.run.spec import assign_shards

Float64Array = npt.NDArray[np.float64]

WIRE_EXPANSION = 4 / 3
"""Bytes on the wire per byte of a partial: base64."""


@dataclass(frozen=True)
class Workload:
    """The work of a run, whatever the number of workers.

    ``shard_rows``: rows of each shard of the dataset. ``train_rows``: rows that one trial trains on in one epoch, all
    workers together, after sampling. ``model_bytes`` and ``slices``: the size of one trial's flat vector in bytes, and
    the number of slices it is cut into. ``batch_size``: rows of a mini-batch, None for optimizers that use all rows in
    every step. ``shared``: every worker trains on all rows. ``reducers``: reduce tasks of a round, None for the
    default.
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
        """Rows of the dataset."""
        return sum(self.shard_rows)

    @property
    def rounds(self) -> int:
        """Rounds of the run."""
        return -(-self.epochs // self.epochs_per_round)

    def row_fractions(self, workers: int) -> Float64Array:
        """Return the fraction of the dataset's rows that each worker holds, shape (workers,).

        With more workers than shards the parts are equal: such a run needs the data imported again with more shards.
        """
        if workers > len(self.shard_rows):
            return np.full(workers, 1.0 / workers)
        plans = assign_shards(self.shard_rows, workers)
        return np.array([sum(self.shard_rows[shard] for shard in plan.shards) for plan in plans]) / self.rows

    def visited_rows(self, workers: int) -> Float64Array:
        """Return the rows that each worker reads and scores in a round, all trials together, shape (workers,)."""
        fractions = np.ones(workers) if self.shared else self.row_fractions(workers)
        return self.trials * self.rows * fractions

    def trained_rows(self, workers: int) -> Float64Array:
        """Return the rows that each worker trains on in one epoch, all trials together, shape (workers,).

        Mini-batches count whole: a step takes nearly as long for a part of a batch as for a whole one.
        """
        rows = self.train_rows * (np.ones(workers) if self.shared else self.row_fractions(workers))
        if self.batch_size is not None:
            rows = np.ceil(np.round(rows) / self.batch_size) * self.batch_size
        return self.trials * rows

    def count_reduce_tasks(self, workers: int) -> int:
        """Return the number of reduce tasks of a round: ``reducers``, or else one per slice but at most one per
        worker."""
        return self.reducers or min(workers, self.trials * self.slices)


@dataclass(frozen=True)
class Costs:
    """Seconds that each piece of work takes on one machine.

    - ``startup``: before the first round and after the last job, once a run
    - ``job``: a job, without its tasks
    - ``dispatch``: the driver's work for one task; the driver does this for one task after another
    - ``task``: to start and end one task on its slot
    - ``commit``: to write a checkpoint
    - ``visit_row``: to read and score one row in one round
    - ``train_example``: to train on one example in one epoch
    - ``encode_byte``, ``average_byte``: for one byte of a partial, in its map task and in its reduce task

    ``contention`` is no time but a factor: how many times as long a task's work takes when ``slots`` tasks run at once.
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
        """Return the factor on a task's work when ``running`` tasks run at once.

        It grows linearly to ``contention`` at ``slots`` tasks and stays there: more slots than were measured mean more
        machines of the same kind.
        """
        if self.slots == 1:
            return 1.0
        return 1.0 + (self.contention - 1.0) * min(1.0, (running - 1) / (self.slots - 1))


@dataclass(frozen=True)
class SimulatedCluster:
    """The machines that a run is predicted for.

    ``slots``: tasks that run at once. ``bandwidth`` (bytes a second) and ``latency`` (seconds): of each machine's
    network link. The defaults, infinite and 0, mean no network: the measured overheads include the local disks.

    ``stragglers``: sigma of a lognormal factor (median 1) on every task's time. ``failures``: probability that an
    attempt of a task dies, at a moment uniform in its duration. The task is then tried again at once, up to ``retries``
    times. ``seed`` decides the random numbers of both.
    """

    slots: int = 1
    bandwidth: float = math.inf
    latency: float = 0.0
    stragglers: float = 0.0
    failures: float = 0.0
    retries: int = 3
    seed: int = 0

    @property
    def is_random(self) -> bool:
        """Whether a prediction needs random numbers: stragglers or failures are expected."""
        return self.stragglers > 0.0 or self.failures > 0.0
