"""What all workers of a group know of a round that they have averaged: every worker's records and drift."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import numpy as np

from nnlib.aggregation.drift import DriftSummary, drift_rows, drift_summary
from nnlib.collective.communicator import Communicator
from nnlib.core.arrays import Vector
from nnlib.core.errors import JobError
from nnlib.run.checkpoint import Checkpoint, KeptState
from nnlib.training.contribution import AveragedRound, WorkerFailedError, encode_message, raise_worker_error
from nnlib.training.round_result import TrialOutput, check_records
from nnlib.training.worker import LocalWorker


def collect_outputs(
    worker: LocalWorker, group: Communicator, before: Checkpoint, averaged: AveragedRound
) -> tuple[dict[int, TrialOutput], AveragedRound]:
    """Make the output of every trial that was active, and exchange the workers' drift.

    Returns the outputs by trial, and ``averaged`` with the seconds that this took added to its ``waited``. Raises
    `WorkerFailedError` for an error that a worker has reported, or for records that do not fit together.
    """
    raise_worker_error(averaged.reports, worker.number)
    began = time.perf_counter()
    outputs = {}
    for index in before.active:
        output = TrialOutput(records={peer: report.records[index] for peer, report in enumerate(averaged.reports)})
        output.join_scores(worker.spec, index)
        if output.diverged is None:
            output.average, output.buffers = averaged.averages[index], averaged.buffers.get(index, ())
        outputs[index] = output
    try:
        check_records(worker.spec, outputs)
    except JobError as error:  # all workers raise it, worker 0 sends it to the driver
        raise WorkerFailedError(error, worker.number == 0) from error
    _exchange_drift(group, before, averaged.contributed, outputs)
    return outputs, averaged._replace(waited=averaged.waited + time.perf_counter() - began)


def gather_kept(worker: LocalWorker, group: Communicator, after: Checkpoint) -> KeptState:
    """Gather `Checkpoint.kept` of the trials that go on at worker 0. The other workers send theirs and get nothing."""
    sources = KeptState(worker.residuals, worker.optimizers)
    names = [(kind, index) for kind in KeptState._fields for index in after.active if index in getattr(sources, kind)]
    mine = [getattr(sources, kind)[index] for kind, index in names]
    kept = KeptState({}, {})
    if not mine:
        return kept
    if group.worker != 0:
        group.send(0, mine)
        return kept
    rows = {0: mine}
    while expected := set(range(group.workers)) - set(rows):
        peer, frames = group.receive(expected)
        rows[peer] = [np.frombuffer(frame, own.dtype) for frame, own in zip(frames, mine, strict=True)]
    for position, (kind, index) in enumerate(names):
        getattr(kept, kind)[index] = np.stack([rows[peer][position] for peer in range(group.workers)])
    return kept


def _exchange_drift(
    group: Communicator,
    before: Checkpoint,
    contributed: Mapping[int, Vector],
    outputs: Mapping[int, TrialOutput],
) -> None:
    """Add every worker's drift to the outputs. Each worker computes its own, for only it has its weights."""
    measured = {}
    for index, output in outputs.items():
        if output.average is not None:
            start = before.trials[index].weights
            rows = drift_rows(contributed[index][: start.size], output.average[: start.size], start)
            measured[str(index)] = drift_summary(rows).to_json()
    answers = group.exchange([[encode_message(measured)]] * group.workers)
    for peer, frames in enumerate(answers):
        for index, drift in json.loads(bytes(frames[0])).items():
            outputs[int(index)].drift[peer] = DriftSummary.from_json(drift)
