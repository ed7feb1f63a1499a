"""metrics.jsonl may be behind the rounds when a driver was killed: no command reads it, the next driver mends it."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from collective_experiment import config
from driver_experiment import blobs
from processes import started
from shards import write_dataset

from jobs.driver import driver
from jobs.driver.verification import verify
from nnlib.config.render import to_yaml
from nnlib.core.events import Event, Note, RunStarted
from nnlib.evaluation.scores_table import scores_of
from nnlib.report.collect import RunFacts
from nnlib.run.directory import METRICS_VIEW, RunDirectory
from nnlib.run.metrics_view import metrics_lines, view_text
from nnlib.tracking.points import History


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, and a finished collective run of 4 rounds."""
    folder = tmp_path_factory.mktemp("view")
    x, y = blobs(200)
    write_dataset(folder / "data", x, y, shards=4, classes=3)
    driver.train(config(str(folder / "data"), folder / "run", sync__mode="collective"))
    return folder


def view_of(run: RunDirectory) -> bytes:
    """What the view of a run must say, from its rounds."""
    store = run.rounds(run.spec())
    return view_text(metrics_lines(store, store.rounds(), run.final())).encode()


def what_commands_say(run: RunDirectory) -> list[Any]:
    """What reports, evaluations and trackers make of a run."""
    facts = RunFacts.read(run.address, "run")
    return [facts.lines, facts.scored, facts.rounds, scores_of(run, [8]), list(History(run).recorded(facts.rounds))]


@pytest.mark.parametrize("left", [0, 1, 500, -1])
def test_a_view_that_is_behind_misleads_nobody_and_is_mended(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)  # of points without an event
    run = RunDirectory.open(str(shutil.copytree(place / "run", tmp_path / "run")))
    view = tmp_path / "run" / METRICS_VIEW
    whole, said = view.read_bytes(), what_commands_say(run)
    assert whole == view_of(run) and whole.count(b"\n") == 5 * 2
    view.write_bytes(whole[:left])
    assert what_commands_say(run) == said
    assert verify(run.address).problems == []
    assert view.read_bytes() == whole[:left]  # whoever only reads does not hold the lock
    events: list[Event] = []
    driver.train(
        config(str(place / "data"), Path(run.address), sync__mode="collective"), resume=True, listen=events.append
    )
    assert view.read_bytes() == whole
    assert [event for event in events if isinstance(event, Note)] == [Note("this run is finished; nothing to do")]


def test_a_view_that_is_gone_is_made_again(place: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(place / "run", tmp_path / "run"))
    whole = (run / METRICS_VIEW).read_bytes()
    (run / METRICS_VIEW).unlink()
    driver.train(config(str(place / "data"), run, sync__mode="collective"), resume=True)
    assert (run / METRICS_VIEW).read_bytes() == whole


def test_a_killed_collective_driver_leaves_no_command_behind(place: Path, tmp_path: Path) -> None:
    """Killed in the midst of its rounds, with workers in processes of their own."""
    run = tmp_path / "run"
    settings = config(
        str(place / "data"),
        run,
        sync__mode="collective",
        runtime__runner="local",
        runtime__cores=3,
        train__epochs=100_000,
        checkpoint__every=1,
    )
    (tmp_path / "config.yaml").write_text(to_yaml(settings))
    command = [sys.executable, "-m", "jobs", "train", str(tmp_path / "config.yaml"), "--quiet"]
    with started(command) as process:
        deadline = time.monotonic() + 60
        while not (run / "rounds/000005/manifest.json").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    # All of its processes are gone: the rounds stand still.
    directory = RunDirectory.open(str(run))
    store = directory.rounds(directory.spec())
    newest = store.newest()
    (run / METRICS_VIEW).write_bytes(b'{"round":1,"ep')  # as far behind as it can be
    facts = RunFacts.read(str(run), "run")
    assert facts.rounds == newest >= 5
    assert {line.round for line in facts.lines} == set(range(newest + 1))
    assert [trial.round for trial in facts.scored] == [newest - 1] * 2

    def stop(event: Event) -> None:
        if isinstance(event, RunStarted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.train(settings, resume=True, listen=stop)
    assert (run / METRICS_VIEW).read_bytes() == view_of(directory)
    assert store.newest() == newest
