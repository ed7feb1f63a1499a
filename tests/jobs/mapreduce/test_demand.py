"""What the tasks of a round need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_job import request, small_spec

from jobs.mapreduce.demand import epoch_work
from nnlib.run.spec import JobSpec


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return small_spec(tmp_path)


def test_a_job_is_small_where_its_work_is_less_than_a_container_costs(spec: JobSpec) -> None:
    assert request(spec, epochs=5).is_small
    assert not request(spec, epochs=100_000_000).is_small
    work = 6 * sum(shard.rows for shard in spec.dataset.shards) * spec.model(spec.trials[0]).layout.size
    assert epoch_work(spec) == work
    digits = 6 * 10 * 5000 * 41_110  # ten splits of a net of 100 hidden units: a second's work
    assert request(spec, epochs=digits // work).is_small
    assert not request(spec, epochs=4 * digits // work).is_small
    shared = spec.config.sampling.model_copy(update={"streams": "shared"})
    everyone = replace(spec, config=spec.config.model_copy(update={"sampling": shared}))
    assert epoch_work(everyone) == 4 * work  # each of the workers has all rows


def test_what_a_job_is_called(spec: JobSpec) -> None:
    assert request(spec).title == "nnjobs tiny round 3/20"
    assert request(spec, "score").title == "nnjobs tiny score"
    assert request(spec).name == "train 2"
    train = spec.config.train.model_copy(update={"epochs_per_round": "auto"})
    grown = replace(spec, config=spec.config.model_copy(update={"train": train}))
    assert request(grown, as_planned=True).title == "nnjobs tiny round 3/?"
