"""The request for a job of a run."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.mapreduce.demand import SMALL_WORK
from jobs.mapreduce.round_job import RoundJob
from jobs.runners.request import JobRequest, TaskDemand
from nnlib.run.round_length import round_count
from nnlib.run.spec import JobSpec


def round_request(
    spec: JobSpec,
    phase: str,
    round_: int,
    active: Sequence[int],
    *,
    lines: Sequence[str],
    files: dict[str, str | None],
    demand: TaskDemand,
    work: float,
    epochs: range,
    slices: int,
) -> JobRequest:
    """Return the request for a job that trains, scores or fits the scaling of the ``active`` trials.

    ``lines`` are the workers' plans; ``files`` are the spec, the models and the optimizer state, by option; ``demand``
    is a worker's; ``work`` is that of one epoch of one trial, in multiplications. ``slices`` is how many slices all
    models have together, which bounds the number of reducers.
    """
    rounds = round_count(spec.config)
    return JobRequest(
        job=RoundJob,
        phase=phase,
        name=f"{phase} {round_}",
        experiment=spec.config.name,
        label=f"round {round_ + 1}/{rounds or '?'}" if phase == "train" else phase,
        round=round_,
        lines=lines,
        options=(
            *("--round", str(round_)),
            *("--epochs", f"{epochs.start}:{epochs.stop}"),
            *("--active", ",".join(map(str, active))),
        ),
        files=files,
        demand=demand,
        reducers=spec.config.reducers or min(spec.workers, slices),
        spare=spec.workers - spec.quorum if phase in ("train", "score") else 0,
        is_small=work * len(active) * max(len(epochs), 1) <= SMALL_WORK,
    )
