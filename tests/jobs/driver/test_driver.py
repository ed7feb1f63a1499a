"""The driver through its public way in: same bits whatever the runner, reducers, slices; resume; early stop; errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver_experiment import CLASSES, blobs, config, model_hash
from runs import deterministic_files
from shards import write_dataset

from jobs.driver import driver
from jobs.runners.inline import InlineSession
from jobs.runners.lines import Line
from jobs.runners.request import JobRequest
from nnlib.core.errors import ConfigError, DataError, MismatchError, NnjobsError, UsageError
from nnlib.core.events import Event, RoundDone, TrialStopped
from nnlib.run.directory import RunDirectory


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    x, y = blobs(400)
    where = tmp_path_factory.mktemp("data") / "blobs with a space"
    write_dataset(where, x, y, shards=8, row_group_rows=16, classes=CLASSES)
    return str(where)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
def test_inline_and_local_give_the_same_bits(dataset: str, tmp_path: Path, workers: int) -> None:
    short = {"workers": workers, "train__epochs": 2}
    inline = model_hash(dataset, tmp_path / "inline", **short)
    local = model_hash(dataset, tmp_path / "local", runtime__runner="local", **short)
    assert inline == local
    assert deterministic_files(tmp_path / "inline") == deterministic_files(tmp_path / "local")


def test_reducers_slices_memory_and_cores_do_not_touch_the_bits(dataset: str, tmp_path: Path) -> None:
    # 2 hidden layers of 300: 93,003 parameters, two blocks, so slices can differ.
    large: dict[str, Any] = {"model__hidden": [300, 300], "train__epochs": 2}
    different: list[dict[str, Any]] = [
        {"reducers": 1},
        {"reducers": 3, "sync__slice_elements": 1},
        {"reducers": 8, "sync__slice_elements": 65_536},
        {"sync__slice_elements": 10**6, "checkpoint__keep": "all"},
        {"runtime__memory_mb": 1},
        {"runtime__runner": "local", "runtime__cores": 1},
        {"runtime__runner": "local", "runtime__cores": 3},
    ]
    first = model_hash(dataset, tmp_path / "0", **large)
    for number, changes in enumerate(different, 1):
        assert model_hash(dataset, tmp_path / str(number), **large, **changes) == first


def test_order_of_lines_does_not_matter(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model_hash(dataset, tmp_path / "plain", model__hidden=[300, 300], reducers=4)
    run, rng = InlineSession.run, np.random.default_rng(5)

    def shuffled(session: InlineSession, job: JobRequest) -> Iterator[Line]:
        lines = list(run(session, job))
        return iter([lines[index] for index in rng.permutation(len(lines))])

    monkeypatch.setattr(InlineSession, "run", shuffled)
    assert model_hash(dataset, tmp_path / "shuffled", model__hidden=[300, 300], reducers=4) == plain


def test_different_seeds_and_splits_differ(dataset: str, tmp_path: Path) -> None:
    hashes = {
        model_hash(dataset, tmp_path / "a"),
        model_hash(dataset, tmp_path / "b", seed=1),
        model_hash(dataset, tmp_path / "c", split__seeds=[1]),
        model_hash(dataset, tmp_path / "d", workers=2),
    }
    assert len(hashes) == 4


def test_trials_together_equal_trials_apart(dataset: str, tmp_path: Path) -> None:
    together = driver.train(config(dataset, tmp_path / "all", split__seeds=[3, 1]))
    apart = [driver.train(config(dataset, tmp_path / str(seed), split__seeds=[seed])) for seed in (3, 1)]
    assert [trial.test_accuracy for trial in together.trials] == [run.test_accuracy for run in apart]
    assert together.test_accuracy == sum(run.test_accuracy or 0.0 for run in apart) / 2
    store = RunDirectory.open(str(tmp_path / "all"))
    arrays = store.final_arrays()
    for index, seed in enumerate((3, 1)):
        own = RunDirectory.open(str(tmp_path / str(seed))).final_arrays()
        for name in own:
            assert np.array_equal(own[name], arrays[f"{index}.{name.removeprefix('0.')}"])


def test_shared_streams_do_not_depend_on_the_number_of_workers(dataset: str, tmp_path: Path) -> None:
    changes = {"sampling__streams": "shared", "sampling__fraction": 0.9}
    hashes = {model_hash(dataset, tmp_path / str(workers), workers=workers, **changes) for workers in (1, 2, 3, 4, 8)}
    assert len(hashes) == 1


@pytest.mark.parametrize("optimizer", ["cg", "lbfgs"])
def test_batch_optimizers_train_by_iterations(dataset: str, tmp_path: Path, optimizer: str) -> None:
    result = driver.train(
        config(dataset, tmp_path / "run", train__optimizer=optimizer, train__epochs=10, train__epochs_per_round=5)
    )
    assert result.rounds == 2
    assert result.test_accuracy is not None and result.test_accuracy > 0.8


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train__optimizer": "adam", "train__optimizer_state": "average", "train__lr": 0.01},
        {"sync__outer": {"kind": "nesterov", "lr": 0.7, "momentum": 0.9}},
        {"sync__outer": {"kind": "momentum", "lr": 1.0, "momentum": 0.5}, "train__optimizer_state": "average"},
        {"data__scale": "standard", "sampling__fraction": 0.8, "split__seeds": [0, 1]},
        {"split__validation": 0.15, "train__stop": {"patience": 2}, "train__keep": "best"},
    ],
)
def test_resumed_after_any_round_equals_uninterrupted(dataset: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, rounds = tmp_path / "whole", 4
    driver.train(config(dataset, whole, train__epochs=8, **changes))
    expected = deterministic_files(whole)

    class StopError(Exception):
        pass

    for last in range(rounds):
        run = tmp_path / f"stopped-{last}"

        def listen(event: Event, last: int = last) -> None:
            if isinstance(event, RoundDone) and event.round > last:
                raise StopError  # as a kill between two rounds

        with pytest.raises(StopError):
            driver.train(config(dataset, run, train__epochs=8, **changes), listen=listen)
        driver.train(config(dataset, run, train__epochs=8, **changes), resume=True)
        assert deterministic_files(run) == expected


def test_resume_with_more_epochs_equals_a_longer_run(dataset: str, tmp_path: Path) -> None:
    longer = driver.train(config(dataset, tmp_path / "long", train__epochs=8))
    driver.train(config(dataset, tmp_path / "grown", train__epochs=4))
    grown = driver.train(config(dataset, tmp_path / "grown", train__epochs=8), resume=True)
    assert grown.model_sha256 == longer.model_sha256
    assert grown.rounds == 4
    assert deterministic_files(tmp_path / "grown") == deterministic_files(tmp_path / "long")


def test_resuming_a_finished_run_only_reports(dataset: str, tmp_path: Path) -> None:
    first = driver.train(config(dataset, tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("rounds/*/*")}
    again = driver.train(config(dataset, tmp_path / "run"), resume=True)
    assert replace(again, seconds=0.0) == replace(first, seconds=0.0)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("rounds/*/*")}


def test_resume_refuses_another_mathematics(dataset: str, tmp_path: Path) -> None:
    driver.train(config(dataset, tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"train\.lr was 0\.05, is 0\.2.*--from"):
        driver.train(config(dataset, tmp_path / "run", train__lr=0.2, train__epochs=8), resume=True)


def test_an_existing_run_is_not_overwritten(dataset: str, tmp_path: Path) -> None:
    driver.train(config(dataset, tmp_path / "run"))
    with pytest.raises(UsageError, match="holds a run already"):
        driver.train(config(dataset, tmp_path / "run"))


def test_warm_start_goes_on_from_the_other_model(dataset: str, tmp_path: Path) -> None:
    driver.train(config(dataset, tmp_path / "parent", checkpoint__keep="all"))
    parent = RunDirectory.open(str(tmp_path / "parent"))
    for start, round_ in ((str(tmp_path / "parent"), 3), (f"{tmp_path / 'parent'}@1", 1)):
        driver.train(config(dataset, tmp_path / f"from-{round_}", train__epochs=0), start_from=start)
        child = RunDirectory.open(str(tmp_path / f"from-{round_}"))
        begun = child.rounds(child.spec()).load(0).trials[0].weights
        assert np.array_equal(begun, parent.rounds(parent.spec()).load(round_).trials[0].weights)
    with pytest.raises(ConfigError, match="keeps no model of round 9"):
        driver.train(config(dataset, tmp_path / "c"), start_from=f"{tmp_path / 'parent'}@9")
    with pytest.raises(ConfigError, match="no trial of split 5"):
        driver.train(config(dataset, tmp_path / "d", split__seeds=[5]), start_from=str(tmp_path / "parent"))
    with pytest.raises(ConfigError, match="another shape"):
        driver.train(config(dataset, tmp_path / "e", model__hidden=[4]), start_from=str(tmp_path / "parent"))


def test_early_stopping_keeps_what_a_bare_loop_would(dataset: str, tmp_path: Path) -> None:
    """Patience counts scored rounds; the stopped trial's model is the one whose score ended it."""
    events: list[Event] = []
    changes = {
        "split__validation": 0.2,
        "train__epochs": 200,
        "train__epochs_per_round": 1,
        "train__lr": 0.5,
        "checkpoint__keep": "all",
    }
    stopped = driver.train(
        config(dataset, tmp_path / "stop", train__stop={"patience": 3}, **changes), listen=events.append
    )
    trial = stopped.trials[0]
    assert trial.status == "stopped"
    assert [event.reason for event in events if isinstance(event, TrialStopped)]
    lines = [json.loads(line) for line in (tmp_path / "stop" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation"]["loss"] for line in lines if line.get("validation")]
    best = int(np.argmin(losses[: trial.round + 1]))
    assert trial.round == best + 3  # three scored rounds after the best, none better
    best_kept = config(dataset, tmp_path / "best", train__stop={"patience": 3}, train__keep="best", **changes)
    kept = driver.train(best_kept).trials[0]
    assert kept.round == best
    assert kept.test_loss == lines[best]["test"]["loss"]


def test_divergence_freezes_one_trial_and_reports_it(dataset: str, tmp_path: Path) -> None:
    result = driver.train(
        config(
            dataset,
            tmp_path / "run",
            train__optimizer="sgd",
            train__lr=1e6,
            train__epochs=40,
            model__activation="relu",
            model__hidden=[64, 64, 64],
            train__l2=1000.0,
        )
    )
    assert result.diverged
    assert "worker" in str(result.diverged[0].reason)
    assert result.trials[0].status == "diverged"
    assert np.isfinite(next(iter(RunDirectory.open(str(tmp_path / "run")).final_arrays().values()))).all()


def test_regression_reports_r2(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5] + 3.0).astype(np.float64)
    write_dataset(tmp_path / "data", x, y, shards=4)
    result = driver.train(
        config(str(tmp_path / "data"), tmp_path / "run", model__hidden=[], train__epochs=60, train__l2=0.0)
    )
    assert result.test_accuracy is None
    assert result.test_r2 is not None and result.test_r2 > 0.99
    assert result.to_json()["test_metric"] == {"name": "r2", "value": result.test_r2}


def test_scaling_does_not_depend_on_the_number_of_workers(dataset: str, tmp_path: Path) -> None:
    scalers = []
    for workers in (1, 3, 8):
        driver.train(config(dataset, tmp_path / str(workers), workers=workers, data__scale="standard", train__epochs=0))
        scalers.append(RunDirectory.open(str(tmp_path / str(workers))).spec().trials[0].scaler)
    first = scalers[0]
    assert first is not None
    for scaler in scalers[1:]:
        assert scaler is not None
        assert np.array_equal(scaler.shift, first.shift) and np.array_equal(scaler.factor, first.factor)


def test_balanced_class_weights_have_mean_one(tmp_path: Path) -> None:
    x, y = blobs(400)
    y = np.where(np.arange(400) < 300, 0, y)
    write_dataset(tmp_path / "data", x, y, shards=4, classes=CLASSES)
    driver.train(config(str(tmp_path / "data"), tmp_path / "run", train__class_weights="balanced", train__epochs=0))
    trial = RunDirectory.open(str(tmp_path / "run")).spec().trials[0]
    assert trial.class_weights is not None
    metrics = json.loads((tmp_path / "run" / "final" / "metrics.json").read_text())
    held_out = np.sum(metrics["trials"][0]["test"]["confusion"], axis=1)
    counts = np.bincount(y, minlength=CLASSES) - held_out
    assert np.dot(counts, trial.class_weights) == pytest.approx(counts.sum())
    assert trial.class_weights == pytest.approx(counts.sum() / (CLASSES * counts))


def test_class_weights_name_classes_in_any_spelling(dataset: str, tmp_path: Path) -> None:
    def weights(**wanted: float) -> tuple[float, ...] | None:
        run = str(tmp_path / "-".join(wanted))
        driver.train(config(dataset, Path(run), train__class_weights=wanted, train__epochs=0))
        return RunDirectory.open(run).spec().trials[0].class_weights

    expected = (1.0, 2.5, *[1.0] * (CLASSES - 2))
    assert weights(**{"1": 2.5}) == weights(**{"1.0": 2.5}) == weights(**{"01": 2.5}) == expected
    with pytest.raises(ConfigError, match="a class twice"):
        weights(**{"1": 2.5, "1.0": 3.0})
    with pytest.raises(ConfigError, match="no class named one"):
        weights(one=2.0)


def test_more_workers_than_shards_is_refused(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only 8 shards"):
        driver.train(config(dataset, tmp_path / "run", workers=9))
    assert not (tmp_path / "run").exists()


def test_a_worker_without_training_rows_is_refused(tmp_path: Path) -> None:
    x, y = blobs(16)
    write_dataset(tmp_path / "data", x, y, shards=8, classes=CLASSES)
    with pytest.raises(ConfigError, match="leaves worker"):
        driver.train(config(str(tmp_path / "data"), tmp_path / "run", workers=8, split__train=0.2))


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_bad_rows_are_named(tmp_path: Path, runner: str) -> None:
    x, y = blobs(80)
    x[37, 2] = np.nan
    write_dataset(tmp_path / "data", x, y, shards=4, classes=CLASSES)
    with pytest.raises(DataError) as caught:
        driver.train(config(str(tmp_path / "data"), tmp_path / "run", train__epochs=2, runtime__runner=runner))
    assert caught.value.exit_code == 3
    assert {"shard": "part-00001.parquet", "row": 37, "worker": 1}.items() <= caught.value.where.items()


def test_a_shard_changed_after_import_is_named(dataset: str, tmp_path: Path) -> None:
    x, y = blobs(80)
    write_dataset(tmp_path / "data", x, y, shards=4, classes=CLASSES)
    part = tmp_path / "data" / "part-00002.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    with pytest.raises(MismatchError, match="part-00002"):
        driver.train(config(str(tmp_path / "data"), tmp_path / "run"))


def test_the_view_of_metrics_has_a_line_per_round_and_trial(dataset: str, tmp_path: Path) -> None:
    result = driver.train(config(dataset, tmp_path / "run", split__seeds=[0, 1]))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["round"], line["trial"]) for line in lines] == [(r, t) for r in range(4) for t in range(2)]
    assert lines[-1]["test"]["accuracy"] == result.trials[1].test_accuracy
    assert all(line["epoch"] == 2 * line["round"] for line in lines)
    assert {len(line["training"]["workers"]) for line in lines if line["round"]} == {4}


def rounds_seen(events: Sequence[Event]) -> list[int]:
    return [event.round for event in events if isinstance(event, RoundDone)]


def test_events_tell_every_round(dataset: str, tmp_path: Path) -> None:
    events: list[Event] = []
    driver.train(config(dataset, tmp_path / "run"), listen=events.append)
    assert rounds_seen(events) == [1, 2, 3]
    log = (tmp_path / "run" / "log").read_text()
    assert log.count("RoundDone") == 3


def test_errors_are_typed() -> None:
    with pytest.raises(NnjobsError):
        driver.train(config("/nowhere", None))


def test_folds_test_every_row_once(dataset: str, tmp_path: Path) -> None:
    result = driver.train(config(dataset, tmp_path / "run", split__folds=5, split__seeds=[0, 1], train__epochs=2))
    assert [(trial.name.split, trial.name.fold) for trial in result.trials] == [
        (s, f) for s in (0, 1) for f in range(5)
    ]
    spec = RunDirectory.open(str(tmp_path / "run")).spec()
    for seed in (0, 1):
        trials = [trial for trial in spec.trials if trial.split == seed]
        assert [sum(trial.test_rows) for trial in trials] == [80] * 5
        assert [sum(trial.train_rows) for trial in trials] == [320] * 5


def test_a_sweep_trains_what_single_runs_train(dataset: str, tmp_path: Path) -> None:
    swept = driver.train(
        config(dataset, tmp_path / "sweep", sweep={"train.lr": [0.01, 0.1], "model.hidden": [[3], [4, 2]]})
    )
    arrays = RunDirectory.open(str(tmp_path / "sweep")).final_arrays()
    assert len(swept.trials) == 4
    for index, trial in enumerate(swept.trials):
        lr, hidden = trial.name.overrides["train.lr"], trial.name.overrides["model.hidden"]
        alone = driver.train(config(dataset, tmp_path / str(index), train__lr=lr, model__hidden=hidden))
        assert alone.test_accuracy == trial.test_accuracy
        own = RunDirectory.open(str(tmp_path / str(index))).final_arrays()
        assert own.keys() == {f"0.{name.partition('.')[2]}" for name in arrays if name.startswith(f"{index}.")}
        assert all(np.array_equal(own[name], arrays[f"{index}.{name.partition('.')[2]}"]) for name in own)


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({"train.epochs": [1, 2]}, "cannot differ in 'train.epochs'"),
        ({"workers": [1, 2]}, "cannot differ in 'workers'"),
        ({"train.lr": [0.1, -1.0]}, "greater than 0"),
        ({"train.learning": [0.1]}, "learning"),
    ],
)
def test_an_impossible_sweep_is_refused(dataset: str, sweep: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(dataset, None, sweep=sweep)
