"""A quorum: rounds go on without workers whose tasks fail for good, and everything that is kept says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver_experiment import CLASSES, blobs, config
from shards import write_dataset

from jobs.driver import driver, verification
from jobs.mapreduce.tasks import MISSING, reduce_task
from jobs.mapreduce.wire import SliceKey, decode_partial, encode_partial
from jobs.runners.local import session as local_session
from jobs.runners.local.attempt import Task
from jobs.runners.local.task_pool import TaskPool
from nnlib.aggregation.average import Partial
from nnlib.config.load import load_config
from nnlib.core.errors import ConfigError, JobError
from nnlib.core.events import Note
from nnlib.core.run_result import MissingWorkers, RunResult
from nnlib.run.directory import RunDirectory
from nnlib.run.spec import JobSpec, partial_layout

WORKERS = 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("data") / "blobs"
    write_dataset(where, *blobs(400), shards=8, row_group_rows=16, classes=CLASSES)
    return str(where)


class LosingPool(TaskPool):
    """A pool whose attempts of worker 1's task in round 1 all fail."""

    def run(self, task: Task) -> None:
        if task.kind == "worker" and task.number == 1 and task.job == "train 1":
            raise JobError("gave up", worker=1)
        super().run(task)


def train(dataset: str, run: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[RunResult, list[str]]:
    monkeypatch.setattr(local_session, "TaskPool", LosingPool)
    notes: list[str] = []
    result = driver.train(
        config(dataset, run, train__epochs=3, train__epochs_per_round=1, runtime__runner="local", **changes),
        listen=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    return result, notes


def test_a_lost_worker_ends_the_run_without_a_quorum(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobError, match="gave up"):
        train(dataset, tmp_path / "run", monkeypatch)


def test_a_quorum_goes_on_and_says_who_was_missing(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, notes = train(dataset, tmp_path / "run", monkeypatch, sync__min_workers=3)
    (note,) = notes
    assert note.startswith("train 1: goes on without worker 1 (part-")
    run = RunDirectory.open(str(tmp_path / "run"))
    spec = run.spec()
    store = run.rounds(spec)
    assert [json.loads(store.log.ledger(round_))["trials"][0].get("missing") for round_ in (1, 2, 3)] == [
        None,
        [1],
        None,
    ]
    facts = json.loads(store.log.ledger(2))["trials"][0]
    assert facts["examples"] == [spec.trials[0].train_rows[worker] for worker in (0, 2, 3)]
    entry = store.log.metrics(2).trials[0].scores
    lost = spec.trials[0].test_rows[1]
    assert entry.missing == MissingWorkers((1,), test_rows=lost, validation_rows=0)
    assert entry.test.rows == sum(spec.trials[0].test_rows) - lost
    view = [json.loads(line) for line in run.storage.read("metrics.jsonl").splitlines()]
    assert [line["round"] for line in view if "missing" in line] == [1]  # the scores of round 1's model lack rows
    assert result.trials[0].missing is None  # the final scores lack none


def test_verify_does_not_take_a_quorums_round_for_tampering(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(dataset, tmp_path / "run", monkeypatch, sync__min_workers=3, checkpoint__keep="all")
    found = verification.verify(str(tmp_path / "run"), every=True)
    assert found.problems == []
    assert found.recomputed == [0, 1, 3]
    assert [note for note in found.notes if "round 2 was not recomputed: workers were missing" in note]


def test_fewer_than_the_quorum_end_the_run(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobError, match="gave up"):
        train(dataset, tmp_path / "run", monkeypatch, sync__min_workers=4)


def test_without_a_loss_a_quorum_changes_nothing(dataset: str, tmp_path: Path) -> None:
    plain = driver.train(config(dataset, tmp_path / "plain", train__epochs=2))
    quorum = driver.train(config(dataset, tmp_path / "quorum", train__epochs=2, sync__min_workers=1))
    assert quorum.model_sha256 == plain.model_sha256


@pytest.mark.parametrize(("quorum", "averaged"), [(None, False), (3, False), (2, True)])
def test_the_average_is_weighted_by_who_came(dataset: str, tmp_path: Path, quorum: int | None, averaged: bool) -> None:
    driver.train(config(dataset, tmp_path / "run", train__epochs=1, sync__min_workers=quorum))
    spec: JobSpec = RunDirectory.open(str(tmp_path / "run")).spec()
    layout = partial_layout(spec, spec.trials[0])
    key = SliceKey(0, 0).encode()
    vectors = {0: np.full(layout.size, 1.0, np.float32), 3: np.full(layout.size, 4.0, np.float32)}
    examples = {0: 30, 3: 10}
    values = [
        encode_partial(key, Partial(worker, examples[worker], vector, layout.fingerprint))
        for worker, vector in vectors.items()
    ]
    lines = dict(reduce_task(spec, key, values, {0: layout.zeros()}))
    if not averaged:
        assert key + MISSING in lines
        assert key not in lines
        return
    mean = decode_partial(key, lines[key])
    assert mean.examples == 40
    assert np.array_equal(mean.weights, np.full(layout.size, (30 * 1.0 + 10 * 4.0) / 40, np.float32))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("workers: 2\nsync: {min_workers: 3}", "min_workers is 3"),
        ("sync: {min_workers: 1, mode: collective}", "needs all its workers"),
    ],
)
def test_impossible_quorums_are_refused(tmp_path: Path, keys: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"data: {{path: d}}\n{keys}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(str(path), ())
