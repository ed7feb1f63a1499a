"""What the tasks of a round need: memory, cores, and whether the work is worth containers of its own."""

from __future__ import annotations

from jobs.mapreduce.tasks import REDUCER_BYTES, slice_elements
from jobs.runners.hadoop.job_properties import JVM_MB, LEAST_MB, MB, PYTHON_MB, UBER_MAPS, Resources
from nnlib.run.spec import JobSpec, partial_layout

UBER_WORK = 2e10
"""Multiplications of a round (6 * rows * parameters * epochs: forward, gradient by weights, gradient by inputs) that
one core does in less time than a job's containers take to start, twice one after the other: maps, then reduces. That is
4 to 9 s; the work takes 1 to 2 s at the 10-17 billion a second that small nets were measured at, 10 s at the least."""


def task_resources(spec: JobSpec, workers: int = 1) -> Resources:
    """What a task of so many workers needs, or what the configuration says.

    A map task holds its rows (``runtime.memory_mb``, once as stored and once converted), the models of all trials, of
    one trial the weights, gradient, optimizer state and outgoing text (about 8 vectors), and the activations of a
    batch. A reduce task holds the partials of one slice, and the models.
    """
    runtime = spec.config.runtime
    layouts = [partial_layout(spec, trial) for trial in spec.trials]
    vectors = sum(layout.nbytes for layout in layouts)
    largest = max(layout.nbytes for layout in layouts)
    activations = max(
        8 * 3 * spec.settings(trial).train.batch_size * (spec.dataset.features + sum(spec.settings(trial).model.hidden))
        for trial in spec.trials
    )
    line = 2 * 8 * max(part.stop - part.start for layout in layouts for _, part in layout.slices(slice_elements(spec)))
    # The JVM holds a line about four times (as bytes, as text, in the sort buffer, on its way to the merge).
    heap = runtime.hadoop.heap_mb or 64 + -(-4 * line // MB)
    rows = min(2 * runtime.memory_mb * MB, 3 * _dataset_bytes(spec))
    mapper = vectors + 8 * largest + activations + rows
    reducer = vectors + min(2 * REDUCER_BYTES, 3 * spec.workers * line)
    python = PYTHON_MB + -(-max(mapper, reducer) // MB)
    shared = 0 if workers == 1 else PYTHON_MB  # of the process that they are forked from
    memory = runtime.hadoop.memory_mb or max(LEAST_MB, heap + JVM_MB + shared + workers * python)
    return Resources(memory, heap, runtime.hadoop.vcores or workers * runtime.blas_threads)


def _dataset_bytes(spec: JobSpec) -> int:
    """All rows, decoded: what a task can hold at most."""
    rows = sum(shard.rows for shard in spec.dataset.shards)
    return rows * (spec.dataset.features * 8 + 32)


def worth_uber(spec: JobSpec, trials: int, epochs: int) -> bool:
    """Whether a job's work is smaller than starting a container for each of its tasks."""
    if spec.workers > UBER_MAPS:
        return False
    size = max(spec.model(trial).layout.size for trial in spec.trials)
    rows = sum(shard.rows for shard in spec.dataset.shards)
    shared = spec.workers if spec.config.sampling.streams == "shared" else 1
    return 6.0 * rows * size * max(epochs, 1) * trials * shared <= UBER_WORK
