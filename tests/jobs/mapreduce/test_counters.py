"""Counters of a round's tasks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from small_job import small_spec

from jobs.mapreduce.counters import count_mapped, count_reduced
from jobs.runners.lines import encode_record
from jobs.runners.node_check import NODE_KEY
from jobs.runners.streaming_reporter import Reporter
from nnlib.run.spec import WorkerPlan
from nnlib.training.scores import ClassificationScore
from nnlib.training.worker_record import TrainingRecord, WorkerRecord


class PlayedJob:
    """What the reporter uses of mrjob's job."""

    def __init__(self) -> None:
        self.stderr = io.BytesIO()
        self.counters: list[tuple[str, str, int]] = []

    def set_status(self, text: str) -> None:
        raise AssertionError("the reporter was not started")

    def increment_counter(self, group: str, name: str, amount: int) -> None:
        self.counters.append((group, name, amount))


def test_tasks_count_their_work(tmp_path: Path) -> None:
    spec, plan = small_spec(tmp_path), WorkerPlan(0, (0,))
    job: Any = PlayedJob()
    score = ClassificationScore(3)
    record = WorkerRecord("", score, score, TrainingRecord((1.0, 0.5), 70, 0), seconds={"read": 0.5, "train": 0.25})
    lines = [(b"00000000.00000000.metrics", encode_record(0, record.to_json()))]
    assert list(count_mapped(Reporter(job), spec, plan, lines)) == lines
    counters = {name: amount for _, name, amount in job.counters}
    assert counters["examples"] == 140
    assert counters["batches"] == 2 * 3
    assert counters["milliseconds read"] == 500
    assert counters["bytes"] == sum(map(len, lines[0])) + 2
    assert {group for group, _, _ in job.counters} == {"nnjobs"}
    assert job.stderr.getvalue().startswith(b"nnjobs: worker 0 on ")


def test_reducers_pass_on_what_tasks_say_of_their_nodes() -> None:
    job: Any = PlayedJob()
    lines = list(count_reduced(Reporter(job), NODE_KEY, [b"a", b"b"], lambda: iter(())))
    assert lines == [(NODE_KEY, b"a"), (NODE_KEY, b"b")]
