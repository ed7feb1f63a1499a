"""Which epochs a round trains: fixed rounds tile the epochs; chosen ones follow drift and cost, everywhere the same."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import trial_metrics
from runs import deterministic_files
from shards import write_dataset

from jobs.driver import driver
from jobs.driver.verification import verify
from jobs.experiments.scaling import changed
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError
from nnlib.core.events import RoundDone, RunStarted
from nnlib.run.directory import RunDirectory
from nnlib.run.round_length import APART, combined_drift, epochs_after, next_epochs, next_length, round_count
from nnlib.run.round_metrics import RoundMetrics


def config(path: str = "d", run: Path | None = None, **keys: Any) -> Config:
    plain = Config.model_validate(
        {
            "data": {"path": path},
            "workers": 4,
            "model": {"hidden": [4]},
            "train": {"epochs": 20, "epochs_per_round": "auto"},
            "run_dir": None if run is None else str(run),
        }
    )
    return changed(plain, **keys)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    x = (rng.normal(size=(3, 5))[y] + rng.normal(size=(240, 5))).astype(np.float32)
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, x, y, shards=4, classes=3)
    return str(where)


def chosen(run: Path) -> list[list[int]]:
    """The epochs of each round of a run, as its ledger tells them."""
    rounds = sorted((run / "rounds").iterdir())[1:]
    return [json.loads((round_ / "ledger.json").read_bytes())["epochs"] for round_ in rounds]


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(0, 300), st.integers(1, 40))
def test_fixed_rounds_tile_the_epochs(epochs: int, period: int) -> None:
    fixed = config(train__epochs=epochs, train__epochs_per_round=period)
    rounds, before = [], range(0)
    while before := next_epochs(fixed, before, None):
        rounds.append(before)
    assert [epoch for part in rounds for epoch in part] == list(range(epochs))
    assert all(before.stop == after.start and len(before) == period for before, after in pairwise(rounds))
    assert len(rounds) == round_count(fixed)


def test_the_length_balances_overhead_and_drift() -> None:
    """At 8 epochs that end 0.1 apart the sum of both costs, c / H + (0.1 / D)^2 H / 8, is least at H = 11.3."""
    cost, drift = 4.0, 0.1
    costs = {length: cost / length + (drift / APART) ** 2 * length / 8 for length in range(1, 40)}
    assert min(costs, key=costs.__getitem__) == next_length(8, drift, cost) == 11


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.integers(1, 10**6),
    st.one_of(st.none(), st.floats(0.0, 1e300)),
    st.floats(0.0, 1e9),
)
def test_a_length_is_whole_and_changes_slowly(length: int, drift: float | None, cost: float) -> None:
    found = next_length(length, drift, cost)
    assert max(1, length // 2) <= found <= 2 * length
    if drift:
        assert next_length(length, 2 * drift, cost) <= found <= next_length(length, drift, 2 * cost)


def test_extremes() -> None:
    assert next_length(4, 0.0, 0.0) == 8  # nobody went apart: nothing speaks for averaging
    assert next_length(4, 0.5, 0.0) == 2  # averaging costs nothing
    assert next_length(1, None, 1e9) == 1
    assert next_length(1, 5e-324, 1.0) == 2  # D / drift overflows to infinity


def test_one_distance_stands_for_all_trials() -> None:
    entries = [trial_metrics(0.1, 0.2, 9.0), trial_metrics(0.3, 0.1, 0.5), trial_metrics()]
    assert combined_drift(entries) == 0.3  # medians 0.2 and 0.3
    assert combined_drift([trial_metrics(0.1, None, None)]) is None
    assert combined_drift([trial_metrics(0.25, 0.75)]) == 0.5
    assert combined_drift([]) == 0.0


def test_a_run_is_what_its_rounds_say(dataset: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = driver.train(config(dataset, run, sync__round_cost=3.0, split__seeds=[0, 1]))
    rounds = chosen(run)
    assert rounds[0] == [0, 1]
    assert rounds[-1][1] == 20
    assert all(before[1] == after[0] for before, after in pairwise(rounds))
    assert result.rounds == len(rounds) < 20
    store = RunDirectory.open(str(run)).rounds(RunDirectory.open(str(run)).spec())
    for round_, (first, end) in enumerate(rounds[1:], 1):
        distances = [
            sorted(w.drift.relative or 0.0 for w in trial.workers) for trial in store.log.metrics(round_).trials
        ]
        drift = max(each[1] / 2 + each[2] / 2 for each in distances)
        length = rounds[round_ - 1][1] - rounds[round_ - 1][0]
        wanted = min(max(APART / drift * math.sqrt(3.0 * length), length / 2), 2 * length)
        assert end - first == min(max(int(wanted), 1), 20 - first)
    found = verify(str(run), every=True)
    assert found.problems == [] and found.recomputed == list(range(len(rounds) + 1))


def test_runners_and_resumed_runs_choose_alike(dataset: str, tmp_path: Path) -> None:
    settings = {"sync__round_cost": 3.0, "train__epochs": 12}
    driver.train(config(dataset, tmp_path / "whole", **settings))

    def stop(event: object) -> None:
        if isinstance(event, RoundDone) and event.round == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.train(config(dataset, tmp_path / "torn", **settings), listen=stop)
    driver.train(config(dataset, tmp_path / "torn", **settings), resume=True)
    driver.train(config(dataset, tmp_path / "local", runtime__runner="local", **settings))
    whole = deterministic_files(tmp_path / "whole")
    assert whole == deterministic_files(tmp_path / "torn") == deterministic_files(tmp_path / "local")


def test_the_cost_is_measured_once_and_stored(dataset: str, tmp_path: Path) -> None:
    """A resumed run takes the cost from its own configuration; another one given by hand is another run."""
    started = []

    def listen(event: object) -> None:
        if isinstance(event, RunStarted):
            started.append(event)
        if isinstance(event, RoundDone) and event.round == 1:
            raise KeyboardInterrupt

    unmeasured = config(dataset, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        driver.train(unmeasured, listen=listen)
    assert started[0].rounds is None and started[0].first_epoch == 0
    run = RunDirectory.open(str(tmp_path / "run"))
    cost = run.config().sync.round_cost
    assert cost is not None and cost > 0.0
    with pytest.raises(ConfigError, match=r"sync\.round_cost"):
        driver.train(changed(unmeasured, sync__round_cost=2 * cost), resume=True)
    with pytest.raises(ConfigError, match="epochs_per_round auto"):
        driver.train(changed(unmeasured, train__epochs=30), resume=True)
    driver.train(unmeasured, resume=True)
    assert run.config().sync.round_cost == cost
    driver.train(config(dataset, tmp_path / "again", sync__round_cost=cost))
    assert deterministic_files(tmp_path / "run") == deterministic_files(tmp_path / "again")


def test_a_collective_must_be_told_the_cost(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs to know what a round costs"):
        driver.train(config(dataset, tmp_path / "run", sync__mode="collective"))
    assert not (tmp_path / "run").exists()


def test_fixed_rounds_measure_nothing(dataset: str, tmp_path: Path) -> None:
    fixed = config(dataset, tmp_path / "run", train__epochs=4, train__epochs_per_round=2)
    driver.train(fixed)
    assert RunDirectory.open(str(tmp_path / "run")).config().sync.round_cost is None


def test_one_worker_is_never_apart(dataset: str, tmp_path: Path) -> None:
    driver.train(config(dataset, tmp_path / "run", workers=1, sync__round_cost=0.1))
    assert chosen(tmp_path / "run") == [[0, 1], [1, 3], [3, 7], [7, 15], [15, 20]]


def test_the_next_epochs_follow_from_what_is_committed() -> None:
    auto = config(sync__round_cost=1.0)
    assert epochs_after(auto, RoundMetrics(0)) == range(1)
    metrics = RoundMetrics(2, 5, range(3, 5), (trial_metrics(APART, APART),))
    assert epochs_after(auto, metrics) == range(5, 6)  # sqrt(1 * 2) = 1.4
    assert epochs_after(auto, replace(metrics, epochs=range(18, 20))) == range(20, 20)
