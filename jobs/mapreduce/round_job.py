"""The MapReduce job of one round, as an mrjob job.

One map task per line of the plan, one reduce group per slice of a trial's weights. The input is the plan, never the
data: mappers open their shards themselves. Runners start this file as a script, so nnjobs must be
importable as an installed package.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs.mapreduce.counters import count_mapped, count_reduced
from jobs.mapreduce.tasks import Models, map_task, reduce_task
from jobs.runners.lines import ERROR_KEY, Line, encode_record
from jobs.runners.task_job import TaskJob
from nnlib.config.devices import devices_here
from nnlib.core.errors import NnjobsError
from nnlib.core.layout import ModelState
from nnlib.core.numerics import use_threads
from nnlib.run.model_file import read_model, unpack
from nnlib.run.spec import JobSpec, WorkerPlan, partial_layout
from nnlib.storage import file_at
from nnlib.training.worker import numerics_here

_specs: dict[bytes, JobSpec] = {}
"""The last spec read in this process: inline, every task of every round reads the same one."""


class RoundJob(TaskJob):
    """Train (or score, or fit scaling) every active trial for one round."""

    reports_node = True
    SORT_VALUES = True  # values begin with the worker: reducers get them in worker order

    def add_task_args(self) -> None:
        super().add_task_args()
        self.add_file_arg("--model", default=None)
        self.add_file_arg("--frozen", default=None)
        self.add_file_arg("--state", default=None)
        self.add_passthru_arg("--round", type=int, default=0)
        self.add_passthru_arg("--epochs", type=_epochs, default=range(0))
        self.add_passthru_arg("--active", type=_indices, default=())
        self.add_passthru_arg("--check-node", action="store_true")

    def mapper(self, _: Any, line: str) -> Iterator[Line]:
        """Yield the lines of one worker, whose plan is ``line``."""
        if not line.strip():
            return
        options, plan = self.options, WorkerPlan.from_line(line)
        if options.check_node:
            yield from self._node(plan)
        if options.phase == "preflight":
            return
        spec = self._spec()
        models = self._models(spec)
        lines = map_task(spec, plan, options.phase, options.round, options.active, models, options.epochs)
        yield from lines if self._reporter is None else count_mapped(self._reporter, spec, plan, lines)

    def _node(self, plan: WorkerPlan) -> Iterator[Line]:
        """What the task's node is like."""
        from jobs.runners.node_check import node_line  # late: only a cluster's tasks are asked

        spec = self._spec()
        try:
            yield node_line(plan.worker, numerics_here(spec), devices_here(spec.config.runtime.device))
        except NnjobsError as error:  # a device that is not there
            error.where.setdefault("worker", plan.worker)
            yield ERROR_KEY, encode_record(plan.worker, error.to_record())

    def reducer(self, key: bytes, values: Iterator[bytes]) -> Iterator[Line]:
        """Yield the average of one slice; ``values`` are the workers' partials of it."""
        spec = self._spec()

        def reduce() -> Iterator[Line]:
            return reduce_task(spec, key, values, self._models(spec), self.options.epochs)

        yield from reduce() if self._reporter is None else count_reduced(self._reporter, key, values, reduce)

    def _spec(self) -> JobSpec:
        text = Path(self.options.spec).read_bytes()
        if text not in _specs:
            _specs.clear()
            spec = JobSpec.from_json(json.loads(text))
            if (frozen := self.options.frozen) is not None:
                spec = replace(spec, frozen_file=partial(_read, frozen))
            _specs[text] = spec
        use_threads(_specs[text].config.runtime.blas_threads)
        return _specs[text]

    def _models(self, spec: JobSpec) -> Models:
        """The models that the active trials start the round from; read once, inline for all tasks of the job."""
        if not hasattr(self, "_loaded"):
            self._loaded = load_models(spec, self.options.model, self.options.state, self.options.active)
        return self._loaded


def load_models(spec: JobSpec, model: str | None, state: str | None, active: tuple[int, ...]) -> Models:
    """Return the active trials' models from a checkpoint's model file; averaged optimizer state follows the weights."""
    import numpy as np

    if model is None:
        return {}
    arrays = unpack(_read(model), model)
    states = unpack(_read(state), state) if state is not None else {}
    models = {}
    for index in active:
        network = spec.model(spec.trials[index])
        vector, buffers = read_model(index, arrays, network.layout, model)
        if partial_layout(spec, spec.trials[index]).size > vector.size:
            vector = np.concatenate([vector, states[f"{index}.optimizer"]])
        for array in (vector, *buffers):
            array.flags.writeable = False  # inline, the next task starts from it too
        models[index] = ModelState(vector, buffers)
    return models


def _read(address: str) -> bytes:
    folder, name = file_at(address)
    return folder.read(name)


def _epochs(text: str) -> range:
    first, colon, end = text.partition(":")
    if not (colon and first.isdigit() and end.isdigit()):
        raise argparse.ArgumentTypeError(f"not epochs from:to, such as 10:15: {text!r}")
    return range(int(first), int(end))


def _indices(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a list of trial numbers: {text!r}") from error


if __name__ == "__main__":
    RoundJob.run()
