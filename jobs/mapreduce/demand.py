"""What the tasks of a round need: memory, the length of their lines, and whether the work is worth containers."""

from __future__ import annotations

from jobs.mapreduce.tasks import REDUCER_BYTES, slice_elements
from jobs.runners.request import TaskDemand
from nnlib.config.kinds import MODELS
from nnlib.run.spec import JobSpec, partial_layout

MB = 1 << 20

SMALL_WORK = 2e10
"""Floating-point operations of a job (`nnlib.models.protocol.Model.row_operations` * rows * epochs) that one core does
in less time than a job's containers take to start, twice one after the other: maps, then reduces. That is 4 to 9 s; the
work takes 1 to 2 s at the 10-17 billion a second that small nets were measured at, 10 s at the least."""


def task_demand(spec: JobSpec) -> TaskDemand:
    """Return what a task of one worker needs.

    A map task holds its rows (``runtime.memory_mb``, once as stored and once converted), the models of all trials, of
    one trial the weights, gradient, optimizer state and outgoing text (about 8 vectors), and the activations of a
    batch. A reduce task holds the partials of one slice, and the models. Either imports what
    the models' kinds need.
    """
    layouts = [partial_layout(spec, trial) for trial in spec.trials]
    vectors = sum(layout.nbytes for layout in layouts)
    largest = max(layout.nbytes for layout in layouts)
    activations = max(
        spec.model(trial).activation_bytes(spec.settings(trial).train.batch_size) for trial in spec.trials
    )
    line = 2 * 8 * max(part.stop - part.start for layout in layouts for _, part in layout.slices(slice_elements(spec)))
    rows = min(2 * spec.config.runtime.memory_mb * MB, 3 * _dataset_bytes(spec))
    mapper = vectors + 8 * largest + activations + rows
    reducer = vectors + min(2 * REDUCER_BYTES, 3 * spec.workers * line)
    imported = max(MODELS.of(spec.settings(trial).model).memory_mb for trial in spec.trials)
    return TaskDemand(memory_mb=-(-max(mapper, reducer) // MB) + imported, line_bytes=line)


def _dataset_bytes(spec: JobSpec) -> int:
    """All rows, decoded: what a task can hold at most."""
    rows = sum(shard.rows for shard in spec.dataset.shards)
    return rows * (spec.dataset.features * 8 + 32)


def epoch_work(spec: JobSpec) -> float:
    """Return the floating-point operations of one epoch of one trial, by all workers together (the costliest
    model's)."""
    operations = max(spec.model(trial).row_operations for trial in spec.trials)
    rows = sum(shard.rows for shard in spec.dataset.shards)
    copies = spec.workers if spec.config.sampling.streams == "shared" else 1
    return operations * rows * copies
