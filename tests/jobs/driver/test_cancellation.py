"""A run that is cancelled at any moment ends as by Ctrl-C; resumed, it ends in the bits of one never disturbed."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver_experiment import blobs
from kill_points import changes_of, config, kill_points
from runs import deterministic_files
from shards import write_dataset

import nnlib.storage.fault_hook
from jobs.__main__ import main
from jobs.driver import driver
from nnlib.core.events import Event, RoundDone
from nnlib.run.cancel_request import CancelRequest, ask_to_end
from nnlib.run.lease import driver_of
from nnlib.run.run_state import run_state
from nnlib.storage import LocalStorage, storage

REQUEST = CancelRequest("me", "elsewhere", 0.0)
FOUND_SECONDS = 5.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "poll_seconds", 0.01)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Where a shell started the tests in the background, they ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("data") / "set"
    write_dataset(where, *blobs(90), shards=3, classes=3)
    return str(where)


def ask(run: Path) -> bool:
    """Ask the driver of a run to end, if it has one that lives."""
    place = storage(str(run), private=True)
    holder = driver_of(place) if run.exists() else None
    return holder is not None and holder.is_alive and ask_to_end(place, holder.name, REQUEST)


def asking_at(run: Path, number: int) -> Callable[[Event], None]:
    """A listener that asks in the ``number``-th round, and waits for the interruption."""

    def listen(event: Event) -> None:
        if isinstance(event, RoundDone) and event.round == number:
            assert ask(run)
            time.sleep(FOUND_SECONDS)

    return listen


def ended_as(run: Path, point: int) -> str:
    """How a run that was asked to end at a change has ended."""
    if not (run / "spec.json").exists():
        return "not begun"
    state = run_state(str(run))
    if state.state != "finished":  # the last change was done already
        assert (state.state, state.exit_code) == ("interrupted", 130), point
        assert state.reason is not None and "nnjobs cancel by me on elsewhere" in state.reason, point
    return state.state


@pytest.mark.parametrize("mode", ["rounds", "collective"])
def test_cancelled_at_any_change_and_resumed(
    dataset: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    total = changes_of(lambda: driver.train(config(dataset, whole, mode), resume=True), tmp_path / "count")
    expected = deterministic_files(whole)
    ends = set()
    points = kill_points(total, request)
    for point in points if request.config.getoption("--full") else points[::4]:
        seen, asked = 0, False

        def step(action: str, place: str | Path, point: int = point) -> None:
            nonlocal seen, asked
            if threading.current_thread() is not threading.main_thread():
                return
            seen += 1
            if seen > point and not asked:
                asked = True  # before the request is written, which is a change, too
                asked = ask(run)
                time.sleep(0.5 if asked else 0.0)  # a busy machine may need it; the interruption ends it

        with monkeypatch.context() as patch:
            patch.setattr(nnlib.storage.fault_hook, "step", step)
            try:
                driver.train(config(dataset, run, mode), resume=True)
            except KeyboardInterrupt:
                ends.add(ended_as(run, point))
            else:
                ends.add("finished")
        driver.train(config(dataset, run, mode), resume=True)  # an old request does not count
        assert deterministic_files(run) == expected, point
        assert run_state(str(run)).state == "finished"
        shutil.rmtree(run)
    assert "interrupted" in ends


def test_a_driver_in_another_thread_ends_between_rounds(dataset: str, tmp_path: Path) -> None:
    """No signal interrupts a thread, but the request counts before the next round."""
    run = tmp_path / "run"
    rounds: list[int] = []
    ends: list[BaseException] = []

    def listen(event: Event) -> None:
        if isinstance(event, RoundDone):
            rounds.append(event.round)
            if event.round == 1:
                assert ask(run)
                time.sleep(0.3)

    def work() -> None:
        try:
            driver.train(config(dataset, run), listen=listen)
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(end) for end in ends] == [KeyboardInterrupt] and rounds == [1]
    assert run_state(str(run)).state == "interrupted"


def test_the_command_ends_a_run_and_says_what_is_over_already(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    codes: list[int] = []

    def cancel() -> None:
        codes.append(main(["cancel", str(run), "--wait", "60"]))

    thread = threading.Thread(target=cancel)

    def listen(event: Event) -> None:
        if isinstance(event, RoundDone) and event.round == 1:
            thread.start()
            time.sleep(FOUND_SECONDS)

    with pytest.raises(KeyboardInterrupt):
        driver.train(config(dataset, run), listen=listen)
    thread.join()
    said = capsys.readouterr().err
    assert codes == [0]
    assert "asked the driver, process" in said and "interrupted: nnjobs cancel by" in said
    assert "nnjobs train --resume --run-dir" in said

    assert main(["cancel", str(run)]) == 0
    said = capsys.readouterr().err
    assert "no driver works on this run (interrupted: nnjobs cancel by" in said and "there is nothing to end" in said

    driver.train(config(dataset, run), resume=True)
    assert main(["cancel", str(run)]) == 0
    assert "this run is finished: there is nothing to end" in capsys.readouterr().err
    assert main(["cancel", str(tmp_path / "none")]) == 2


def test_asked_twice_and_a_driver_that_does_not_answer(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(LocalStorage, "poll_seconds", 1000.0)  # it looks for no request in time
    codes: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, RoundDone) and event.round == 1:
            codes.append(main(["cancel", str(run), "--wait", "0"]))
            codes.append(main(["cancel", str(run), "--wait", "0.1"]))

    driver.train(config(dataset, run), listen=listen)
    said = capsys.readouterr().err
    assert codes == [0, 4]
    assert "was asked to end before by" in said and "did not end within 0.1 s" in said


def test_the_status_command(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shown: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, RoundDone) and event.round == 2:
            assert main(["status", str(run)]) == 0
            shown.append(capsys.readouterr().out)
            if main(["cancel", str(run), "--wait", "0"]) == 130:  # found so soon that it has ended this command instead
                raise KeyboardInterrupt
            time.sleep(FOUND_SECONDS)

    with pytest.raises(KeyboardInterrupt):
        driver.train(config(dataset, run), listen=listen)
    assert ": running\n  round 2 of 4, epoch 2 of 4, inline, 2 workers, rounds mode" in shown[0]
    assert main(["status", str(run), "--follow"]) == 130
    said = capsys.readouterr()
    assert ": interrupted: nnjobs cancel by" in said.out
    driver.train(config(dataset, run), resume=True)
    assert main(["status", str(run), "--follow"]) == 0
    assert ": finished" in capsys.readouterr().out
