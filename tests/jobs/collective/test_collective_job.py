"""Collective mode gives the bits of rounds mode: whatever the runner, the workers, the optimizer, the commits."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collective_experiment import both, config, substance
from shards import write_dataset

from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.core.errors import MismatchError, StorageError
from nnlib.core.events import Event, RoundDone
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.directory import RunDirectory
from nnlib.run.round_store import RoundStore
from nnlib.training.round_batches import RoundBatches
from nnlib.training.worker_trial import WorkerTrial

EXPERIMENTS: dict[str, dict[str, Any]] = {
    "sgd, equal weights": {"train__optimizer": "sgd", "sync__weighting": "equal"},
    "averaged momentum": {"train__optimizer_state": "average"},
    "averaged adam, float64": {
        "train__optimizer": "adam",
        "train__lr": 0.01,
        "train__optimizer_state": "average",
        "model__dtype": "float64",
    },
    "server momentum": {"sync__outer": {"kind": "momentum", "lr": 0.7, "momentum": 0.5}},
    "nesterov, standard scale": {
        "sync__outer": {"kind": "nesterov", "lr": 0.7, "momentum": 0.5},
        "data__scale": "standard",
    },
    "cg, shared streams": {"train__optimizer": "cg", "sampling__streams": "shared", "sampling__fraction": 0.9},
    "lbfgs": {"train__optimizer": "lbfgs", "sampling__fraction": 0.8},
    "early stopping": {"train__stop": {"patience": 1, "min_delta": 0.02}, "train__epochs": 20},
    "best round": {"train__keep": "best", "train__lr": 0.4, "train__epochs": 12, "checkpoint__keep": 1},
    "one trial diverges": {"sweep": {"train.lr": [0.05, 1e6]}, "train__class_weights": "balanced"},
    "a sweep of weightings and widths": {"sweep": {"sync.weighting": ["examples", "equal"], "model.hidden": [[2], []]}},
    "rounds of automatic length": {"train__epochs_per_round": "auto", "sync__round_cost": 3.0, "train__epochs": 15},
    "several blocks": {"model__hidden": [300, 300], "train__epochs": 4},
    "int8 in several blocks": {"model__hidden": [300, 300], "train__epochs": 4, "sync__precision": "int8"},
    "float16": {"sync__precision": "float16", "train__optimizer_state": "average"},
    "bfloat16 that diverges": {"sync__precision": "bfloat16", "sweep": {"train.lr": [0.05, 1e6]}},
    "float32 of float64": {"sync__precision": "float32", "model__dtype": "float64"},
}


@pytest.mark.parametrize("changes", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_equals_rounds_mode(blobs: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    rounds, collective = both(blobs, tmp_path, **changes)
    assert rounds == collective


@pytest.mark.parametrize("workers", [1, 2, 5, 8])
def test_equals_rounds_mode_for_any_number_of_workers(blobs: str, tmp_path: Path, workers: int) -> None:
    rounds, collective = both(blobs, tmp_path, workers=workers, train__epochs=4)
    assert rounds == collective


def test_when_it_commits_does_not_matter(blobs: str, tmp_path: Path) -> None:
    found = []
    for number, (every, keep) in enumerate(itertools.product((1, 2, 3, 100, "1s"), (1, "all"))):
        run = tmp_path / str(number)
        changes = {"checkpoint__every": every, "checkpoint__keep": keep, "train__keep": "best", "train__epochs": 14}
        driver.train(config(blobs, run, sync__mode="collective", **changes))
        found.append(substance(run))
        store = RunDirectory.open(str(run)).rounds(RunDirectory.open(str(run)).spec())
        commits = [span[-1] for span in store.log.spans()]
        if isinstance(every, int):
            assert commits == [0, *(round_ for round_ in range(1, 7) if round_ % every == 0), 7]
        assert [store.has_model(commit) for commit in commits] == [
            keep == "all" or commit in (0, 7) or commit in best_rounds(run) for commit in commits
        ]
    assert all(one == found[0] for one in found)


def best_rounds(run: Path) -> set[int]:
    directory = RunDirectory.open(str(run))
    store = directory.rounds(directory.spec())
    return {trial.best_round for trial in store.load(store.newest()).trials if trial.best_round is not None}


def test_a_run_may_change_its_mode_when_it_goes_on(blobs: str, tmp_path: Path) -> None:
    driver.train(config(blobs, tmp_path / "whole", train__epochs=12))
    for number, modes in enumerate([("rounds", "collective"), ("collective", "rounds"), ("collective", "collective")]):
        run = tmp_path / str(number)
        for epochs, mode in zip((4, 12), modes, strict=True):
            driver.train(config(blobs, run, train__epochs=epochs, sync__mode=mode), resume=True)
        assert substance(run)["ledger"] == substance(tmp_path / "whole")["ledger"]
        assert substance(run)["view"] == substance(tmp_path / "whole")["view"]


def test_every_round_is_reported_once_in_order(blobs: str, tmp_path: Path) -> None:
    by_mode: dict[str, list[Event]] = {"rounds": [], "collective": []}
    for mode, events in by_mode.items():
        driver.train(config(blobs, tmp_path / mode, sync__mode=mode, train__epochs=20), listen=events.append)
    plain = [
        [{**vars(event), "seconds": 0} for event in events if isinstance(event, RoundDone)]
        for events in by_mode.values()
    ]
    assert plain[0] == plain[1] and [event["round"] for event in plain[0]] == list(range(1, 11))


@pytest.mark.parametrize("workers", [1, 2, pytest.param(4, marks=pytest.mark.full), 8])
def test_processes_equal_rounds_mode(blobs: str, tmp_path: Path, workers: int) -> None:
    """However few the cores: workers that wait for each other run all at once."""
    local = {"runtime__runner": "local", "runtime__cores": 1, "sync__outer": {"kind": "nesterov", "momentum": 0.5}}
    driver.train(config(blobs, tmp_path / "rounds", workers=workers, sync__outer=local["sync__outer"]))
    for encryption in (True, False) if workers == 2 else (True,):
        run = tmp_path / f"collective-{encryption}"
        driver.train(config(blobs, run, workers=workers, sync__mode="collective", sync__encryption=encryption, **local))
        assert substance(run) == substance(tmp_path / "rounds")


@pytest.mark.parametrize("every", ["epochs", "batch"])
def test_an_error_of_one_worker_is_reported_once(tmp_path: Path, every: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80)
    write_dataset(tmp_path / "data", rng.normal(size=(80, 3)).astype(np.float32), y, shards=4, classes=2)

    def experiment(epochs: int) -> Config:
        several = {"sync__mode": "collective", "sync__every": every, "runtime__runner": "local"}
        run = tmp_path / "run"
        return config(str(tmp_path / "data"), run, **several, train__epochs_per_round=1, train__epochs=epochs)

    driver.train(experiment(1))
    shard = tmp_path / "data" / "part-00001.parquet"
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(MismatchError, match=r"part-00001\.parquet") as caught:
        driver.train(experiment(3), resume=True)
    assert "more errors" not in str(caught.value) and caught.value.where["worker"] == 1
    assert not (tmp_path / "run" / "collective").exists()


@pytest.mark.parametrize(
    "changes", [{}, {"sync__every": "batch"}, {"sync__overlap": 1, "sync__overlap_drain": 2}], ids=str
)
def test_an_error_on_the_way_ends_the_run(
    blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    draw = WorkerTrial.draw_batches

    def fail(self: WorkerTrial, epoch: int) -> RoundBatches:
        if (self.worker, epoch) == (1, 4):
            raise MismatchError("rows are gone")
        return draw(self, epoch)

    monkeypatch.setattr(WorkerTrial, "draw_batches", fail)
    experiment = config(blobs, tmp_path / "run", sync__mode="collective", checkpoint__every=1, **changes)
    with pytest.raises(MismatchError, match="rows are gone") as caught:
        driver.train(experiment)
    assert "more errors" not in str(caught.value) and caught.value.where["worker"] == 1
    directory = RunDirectory.open(str(tmp_path / "run"))
    assert directory.rounds(directory.spec()).rounds() == [0, 1, 2]


def test_a_commit_that_fails_ends_the_run(blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = RoundStore.commit

    def full(self: RoundStore, checkpoint: Checkpoint, before: Checkpoint | None = None) -> None:
        if checkpoint.round == 2:
            raise StorageError("cannot write: No space left on device")
        commit(self, checkpoint, before)

    monkeypatch.setattr(RoundStore, "commit", full)
    experiment = config(blobs, tmp_path / "run", sync__mode="collective", checkpoint__every=1)
    with pytest.raises(StorageError, match="No space left"):
        driver.train(experiment)
    monkeypatch.undo()
    driver.train(experiment, resume=True)
    driver.train(config(blobs, tmp_path / "rounds"))
    assert substance(tmp_path / "run") == substance(tmp_path / "rounds")
