"""A group that loses a worker, all its workers or its driver ends in the bits of one that lost nobody; and if it cannot
go on, it says so.

The faults are real ones, of real processes: a test waits until the group has met, and stops or kills a worker then. A
run that was too quick for it is done again with more epochs.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from collective_experiment import substance
from lost_workers import WORKERS, TooQuickError, collective, disturbed, group, members, undisturbed, wait_for
from processes import alive, started, wait_until_gone
from product import ROOT

from jobs.driver import driver
from jobs.runners.local.chaos import Chaos
from jobs.runners.local.task_pool import TaskPool
from nnlib.config.render import to_yaml
from nnlib.core.errors import JobError, UsageError
from nnlib.core.events import Event, Note

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")


def losses(run: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "lost"]


def cases(chosen: set[tuple[signal.Signals, int, int]]) -> list[Any]:
    """(signal, worker, commits before it): those chosen, and all others with --full."""
    every = itertools.product((signal.SIGKILL, signal.SIGSTOP), range(WORKERS), (0, 1, 3))
    return [pytest.param(*case, marks=() if case in chosen else pytest.mark.full) for case in every]


@pytest.mark.parametrize(
    ("number", "worker", "commits"), cases({(signal.SIGKILL, 0, 1), (signal.SIGKILL, 2, 0), (signal.SIGSTOP, 1, 1)})
)
def test_a_worker_that_dies_or_hangs_is_replaced(
    blobs: str, tmp_path: Path, number: signal.Signals, worker: int, commits: int
) -> None:
    def harm(run: Path, ended: Callable[[], bool]) -> None:
        first = group(run, 1, ended, commits=commits)
        (run / "rounds/000000/.model.safetensors.1234abcd.tmp").touch()  # as worker 0 leaves in the midst of a commit
        os.kill(first[worker], number)
        if ended() or list(run.glob("final/*")):
            raise TooQuickError
        second = group(run, 2, ended)
        assert second[worker] != first.pop(worker), "another process"
        assert {peer: second[peer] for peer in first} == first, "survivors keep their processes"

    run, epochs, events = disturbed(blobs, tmp_path, harm)
    assert substance(run) == undisturbed(blobs, tmp_path, epochs)
    assert [loss["worker"] for loss in losses(run)] == [worker]
    assert any(isinstance(event, Note) and event.text.startswith(f"worker {worker}: lost") for event in events)
    assert not (run / "collective").exists()
    assert list(run.rglob(".*.tmp")) == []


@pytest.mark.full
def test_two_workers_lost_at_once_and_one_of_them_again(blobs: str, tmp_path: Path) -> None:
    def harm(run: Path, ended: Callable[[], bool]) -> None:
        first = group(run, 1, ended, commits=1)
        for worker in (0, 1):
            os.kill(first[worker], signal.SIGKILL)
        later = dict(wait_for(lambda: next((g for n in range(2, 9) if len(g := members(run, n)) == WORKERS), 0), ended))
        os.kill(later[1], signal.SIGKILL)
        if ended() or list(run.glob("final/*")):
            raise TooQuickError

    run, epochs, _ = disturbed(blobs, tmp_path, harm)
    assert substance(run) == undisturbed(blobs, tmp_path, epochs)


def test_a_worker_that_is_lost_again_and_again_ends_the_run(blobs: str, tmp_path: Path) -> None:
    def harm(run: Path, ended: Callable[[], bool]) -> None:
        for generation in (1, 2):
            os.kill(group(run, generation, ended)[1], signal.SIGKILL)
        if list(run.glob("final/*")):
            raise TooQuickError

    with pytest.raises(JobError, match="attempt 2 of 2 was ended by SIGKILL") as caught:
        disturbed(blobs, tmp_path, harm, runtime__retries=1)
    assert caught.value.where["worker"] == 1
    assert caught.value.where["shards"].startswith("part-00001")


@pytest.mark.parametrize("slots", [pytest.param(1, marks=pytest.mark.full), 2])
def test_too_few_slots_are_reported_in_time(
    blobs: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    slots: int,
) -> None:
    run_all = TaskPool.run_all

    def fewer(self: TaskPool, functions: Any, *, at_once: int | None = None, what: str = "") -> None:
        run_all(self, functions, at_once=slots if at_once else None, what=what)

    monkeypatch.setattr(TaskPool, "run_all", fewer)
    few = {"sync__gang_timeout_seconds": 0.5}
    with pytest.raises(JobError, match=f"only {slots} of 3 workers came to run at once within 0.5 s") as caught:
        driver.train(collective(blobs, tmp_path / "stops", 6, **few))
    assert caught.value.exit_code == 4 and "more errors" not in str(caught.value)
    events: list[Event] = []
    driver.train(collective(blobs, tmp_path / "rounds", 6, sync__gang_fallback="rounds", **few), listen=events.append)
    assert any(isinstance(event, Note) and "going on in rounds mode from round 0" in event.text for event in events)
    assert substance(tmp_path / "rounds") == undisturbed(blobs, tmp_path, 6)


def test_a_group_that_loses_a_worker_averages_gradients_as_before(blobs: str, tmp_path: Path) -> None:
    def harm(run: Path, ended: Callable[[], bool]) -> None:
        os.kill(group(run, 1, ended, commits=1)[1], signal.SIGKILL)
        group(run, 2, ended)

    run, epochs, _ = disturbed(blobs, tmp_path, harm, sync__every="batch")
    plain = tmp_path / "undisturbed"
    driver.train(collective(blobs, plain, epochs, sync__every="batch", runtime__runner="inline"))
    assert substance(run) == substance(plain)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 8))])
def test_chaos_changes_nothing(blobs: str, tmp_path: Path, seed: int) -> None:
    chaos = Chaos(seed=seed, kill=0.6, delay=0.5, truncate=0.4, reorder=1.0)
    events: list[Event] = []
    driver.train(collective(blobs, tmp_path / "chaos", 40), chaos=chaos, listen=events.append)
    assert substance(tmp_path / "chaos") == undisturbed(blobs, tmp_path, 40)
    assert any(isinstance(event, Note) and event.text.startswith("chaos: ") for event in events)


@pytest.mark.parametrize("fault", ["twin", "hang"])
def test_chaos_that_a_group_cannot_have_is_refused(blobs: str, tmp_path: Path, fault: str) -> None:
    with pytest.raises(UsageError, match="in collective mode"):
        driver.train(collective(blobs, tmp_path / "run", 2), chaos=Chaos.parse(f"{fault}=0.5"))
    assert not (tmp_path / "run").exists()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def test_a_dead_drivers_run_goes_on(blobs: str, tmp_path: Path) -> None:
    epochs = 150
    while True:
        run, file = tmp_path / f"run-{epochs}", tmp_path / f"{epochs}.yaml"
        file.write_text(to_yaml(collective(blobs, run, epochs)))
        command = [sys.executable, "-m", "jobs", "train", str(file), "--run-dir", str(run), "-q"]
        try:
            with started(command, cwd=ROOT) as process:
                workers = group(run, 1, partial(_ended, process), commits=1)
                process.kill()
                process.wait()
                assert all(wait_until_gone(worker) for worker in workers.values()), "orphans end themselves"
            break
        except TooQuickError:
            epochs *= 4
    assert not list(run.glob("final/*"))
    driver.train(collective(blobs, run, epochs), resume=True)
    assert substance(run) == undisturbed(blobs, tmp_path, epochs)
    assert not any(map(alive, workers.values()))
