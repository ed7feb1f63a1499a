"""A small experiment whose jobs are asked of a played Hadoop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.mapreduce.demand import epoch_work, task_demand
from jobs.mapreduce.request import round_request
from jobs.runners.request import JobRequest
from nnlib.config.schema import Config
from nnlib.data.dataset import Dataset
from nnlib.data.synthetic import SynthOptions, synthesize
from nnlib.run.planner import make_spec
from nnlib.run.spec import JobSpec, WorkerPlan

MODEL = "hdfs://host:1/a run, mine/rounds/000002/model.safetensors"


def small_spec(folder: Path) -> JobSpec:
    """The spec of an experiment of 4 workers on a new dataset in ``folder``."""
    data = folder / "data"
    synthesize(str(data), SynthOptions(kind="blobs", rows=400, features=12, classes=3, shards=4))
    config = Config.model_validate(
        {"name": "tiny", "workers": 4, "data": {"path": f"file://{data}"}, "model": {"hidden": [8]}}
    )
    return make_spec(config, Dataset.open(f"file://{data}"))[0]


def with_hadoop(spec: JobSpec, **hadoop: Any) -> JobSpec:
    """The spec with these keys of ``runtime.hadoop``."""
    runtime = spec.config.runtime
    runtime = runtime.model_copy(update={"hadoop": runtime.hadoop.model_copy(update=hadoop)})
    return replace(spec, config=spec.config.model_copy(update={"runtime": runtime}))


def request(
    spec: JobSpec, phase: str = "train", *, epochs: int = 5, as_planned: bool = False, model: str = MODEL
) -> JobRequest:
    """A job of round 2 of 20; ``as_planned``: of the rounds that the spec has."""
    if not as_planned:
        train = spec.config.train.model_copy(update={"epochs": 20 * epochs, "epochs_per_round": epochs})
        spec = replace(spec, config=spec.config.model_copy(update={"train": train, "reducers": 3}))
    return round_request(
        spec,
        phase,
        2,
        [0],
        lines=[WorkerPlan(worker, (worker,)).to_line() for worker in range(spec.workers)],
        files={"--spec": "hdfs://host:1/spec.json", "--model": model, "--state": None},
        demand=task_demand(spec),
        work=epoch_work(spec),
        epochs=range(2 * epochs, 3 * epochs),
        slices=3,
    )
