"""Trackers: what they hold is what was committed, once; one that fails or hangs does not touch the run."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shards import write_dataset

from jobs.driver import driver
from nnlib import tracking
from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError
from nnlib.core.events import Note, RoundDone, RunStarted
from nnlib.core.run_result import RunResult
from nnlib.run.directory import RunDirectory
from nnlib.tracking import follower
from nnlib.tracking.protocol import Point, Status
from nnlib.tracking.tensorboard import EventFiles


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 120)
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, rng.normal(size=(3, 4))[y] + rng.normal(size=(120, 4)), y, shards=2, classes=3)
    return str(where)


def config(dataset: str, run: Path, **tracking: Any) -> Config:
    return Config.model_validate(
        {
            "data": {"path": dataset},
            "run_dir": str(run),
            "workers": 2,
            "split": {"seeds": [0, 1]},
            "model": {"hidden": []},
            "train": {"epochs": 6, "epochs_per_round": 2},
            "tracking": tracking,
        }
    )


def interrupted(settings: Config, after: int) -> None:
    """Train a run that ends after so many rounds."""

    def stop(event: object) -> None:
        if isinstance(event, RoundDone) and event.round == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.train(settings, listen=stop)


def expected(run: Path) -> dict[str, dict[int, float]]:
    """Curves of a run, made from its rounds' files by hand: name -> epoch -> value."""
    curves: dict[str, dict[int, float]] = {}
    for folder in sorted((run / "rounds").iterdir())[1:]:
        metrics = json.loads((folder / "metrics.json").read_bytes())
        first, end = metrics["epochs"]
        trials = metrics["trials"]
        accuracy = [trial["test"]["accuracy"] for trial in trials]
        curves.setdefault("test/accuracy", {})[first] = sum(accuracy) / len(accuracy)
        losses = [trial["training"]["loss"] for trial in trials]
        curves.setdefault("train/loss", {})[end] = sum(losses) / len(losses)
        curves.setdefault("train/epochs_in_round", {})[end] = end - first
    final = json.loads((run / "final/metrics.json").read_bytes())["trials"]
    curves["kept/test/accuracy"] = {end: sum(trial["test"]["accuracy"] for trial in final) / len(final)}
    return curves


def check(curves: Mapping[str, list[tuple[int, float]]], run: Path) -> None:
    """Every value is there, and none twice."""
    for name, values in expected(run).items():
        assert [epoch for epoch, _ in curves[name]] == list(values)
        assert dict(curves[name]) == pytest.approx(values, rel=1e-6)  # event files hold float32
    assert {"train/drift", "time/round_seconds", "test/loss"} <= set(curves)


def events_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: [(each.step, each.value) for each in found.Scalars(name)] for name in found.Tags()["scalars"]}


@pytest.mark.parametrize("folder", [None, "boards"])
def test_event_files_tell_the_rounds_once_also_of_a_resumed_run(
    dataset: str, tmp_path: Path, folder: str | None
) -> None:
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorboard")
    run = tmp_path / "runs" / "one"
    settings = config(dataset, run, tensorboard=True if folder is None else str(tmp_path / folder))
    interrupted(settings, 2)
    driver.train(settings, resume=True)
    place = run / "tensorboard" if folder is None else tmp_path / "boards/runs/one"
    assert len(list(place.iterdir())) == 1
    check(events_in(place), run)


@pytest.fixture
def mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in files (the one that needs no database and no server)."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # so that it is as it was in the end
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return (tmp_path / "mlflow").as_uri()


def test_mlflow_has_one_run_that_a_resumed_run_goes_on_with(dataset: str, tmp_path: Path, mlflow_store: str) -> None:
    from mlflow.tracking import MlflowClient

    settings = config(dataset, tmp_path / "one", mlflow=mlflow_store, experiment="digits")

    def runs() -> list[Any]:
        experiment = client.get_experiment_by_name("digits")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id]))

    interrupted(settings, 2)
    client = MlflowClient(mlflow_store)
    (half,) = runs()
    assert half.info.status == "KILLED" and half.data.params["train.epochs_per_round"] == "2"
    driver.train(settings, resume=True)
    (whole,) = runs()
    assert whole.info.run_id == half.info.run_id and whole.info.status == "FINISHED"
    names = whole.data.metrics
    history = {name: client.get_metric_history(whole.info.run_id, name) for name in names}
    check({name: [(each.step, each.value) for each in values] for name, values in history.items()}, tmp_path / "one")

    driver.train(config(dataset, tmp_path / "two", mlflow=mlflow_store, experiment="digits"))
    assert len(runs()) == 2


class Recording:
    """A tracker for tests: keeps what it is told; fails at, or waits before, a point."""

    def __init__(self, has: Mapping[str, int] | None = None, fails: bool = False, held: bool = False) -> None:
        self.points: list[Point] = []
        self.status: Status | None = None
        self.go_on = threading.Event()
        self._has, self._fails = has or {}, fails
        if not held:
            self.go_on.set()

    def begin(self, run: RunDirectory) -> Mapping[str, int]:
        return self._has

    def write(self, point: Point) -> None:
        self.go_on.wait()
        if self._fails:
            raise OSError("no route\nto host")
        self.points.append(point)

    def end(self, status: Status) -> None:
        self.status = status


def trained(monkeypatch: pytest.MonkeyPatch, settings: Config, tracker: Recording) -> tuple[RunResult, list[str]]:
    """Train with a tracker in the place of the event files; the result and the warnings."""
    kind = tracking.TrackerKind("json", lambda _: tracker)
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", kind)
    warnings: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, Note) and event.level == "warning":
            warnings.append(event.text)

    return driver.train(settings, listen=listen), warnings


def test_a_tracker_gets_what_it_lacks(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Recording(has={"train/loss": 2})
    trained(monkeypatch, config(dataset, tmp_path / "run", tensorboard=True), tracker)
    assert [point.epoch for point in tracker.points if "train/loss" in point.values] == [4, 6]
    assert [point.epoch for point in tracker.points if "train/drift" in point.values] == [2, 4, 6]
    assert tracker.status == "finished"


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
def test_trouble_with_a_tracker_is_a_warning(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(follower, "LAST_SECONDS", 0.1)
    tracker = Recording(fails=trouble == "fails", held=trouble == "hangs")
    result, warnings = trained(monkeypatch, config(dataset, tmp_path / "run", tensorboard=True), tracker)
    tracker.go_on.set()
    plain = driver.train(config(dataset, tmp_path / "plain"))
    assert result.model_sha256 == plain.model_sha256
    (warning,) = warnings
    assert "tracking.tensorboard" in warning and "\n" not in warning
    assert ("OSError: no route" if trouble == "fails" else "still writing") in warning


def test_a_missing_package_is_an_error_before_training(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tracking\.mlflow needs the package mlflow") as caught:
        driver.train(config(dataset, tmp_path / "run", mlflow=True))
    assert 'pip install "nnjobs[mlflow]"' in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_event_files_need_a_local_folder(dataset: str) -> None:
    with pytest.raises(ConfigError, match="local folder"):
        EventFiles.configured(config(dataset, Path("x"), tensorboard="hdfs://n/boards"))


def test_a_run_that_never_starts_starts_no_thread(dataset: str, tmp_path: Path) -> None:
    before = threading.active_count()
    with tracking.tracked(config(dataset, tmp_path / "run", tensorboard=True), lambda event: None) as listen:
        listen(Note("nothing"))
    assert threading.active_count() == before


def test_nothing_is_tracked_unasked(dataset: str, tmp_path: Path) -> None:
    seen: list[object] = []
    with tracking.tracked(config(dataset, tmp_path / "run"), seen.append) as listen:
        assert listen == seen.append
    assert not any(isinstance(event, RunStarted) for event in seen)
