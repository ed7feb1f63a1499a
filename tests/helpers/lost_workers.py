"""Workers that are lost in the middle of a collective run."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from collective_experiment import config, substance

from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.core.events import Event

WAIT_SECONDS = 60.0


WORKERS = 3


class TooQuickError(Exception):
    """The run was at its end before it could be harmed."""


def collective(blobs: str, run: Path, epochs: int, **changes: Any) -> Config:
    fixed: dict[str, Any] = {
        "sync__mode": "collective",
        "runtime__runner": "local",
        "checkpoint__every": 10,
        "sync__worker_timeout_seconds": 3.0,
        "train__epochs": epochs,
        "train__epochs_per_round": 1,
        "split__seeds": [0],
    }
    return config(blobs, run, **(fixed | changes))


def members(run: Path, generation: int) -> dict[int, int]:
    """Worker -> process of those in a generation."""
    found = {}
    for path in run.glob(f"collective/*/generation-{generation:06d}-worker-*.json"):
        try:
            member = json.loads(path.read_bytes())
            task = json.loads((path.parent / f"task-{member['incarnation']}.json").read_bytes())
        except (OSError, ValueError):
            continue  # the folder goes when the job ends
        found[member["worker"]] = task["process"]
    return found


def wait_for(condition: Callable[[], Any], ended: Callable[[], bool]) -> Any:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        if ended():
            raise TooQuickError
        time.sleep(0.002)
    raise AssertionError("waited in vain")


def group(run: Path, generation: int, ended: Callable[[], bool], *, commits: int = 0) -> dict[int, int]:
    """The processes of a generation that is complete, when the run has ``commits`` behind its start."""
    wait_for(lambda: len(list(run.glob("rounds/*/manifest.json"))) > commits, ended)
    return dict(wait_for(lambda: len(found := members(run, generation)) == WORKERS and found, ended))


def _ended(thread: threading.Thread) -> bool:
    return not thread.is_alive()


def disturbed(
    blobs: str,
    where: Path,
    harm: Callable[[Path, Callable[[], bool]], None],
    **changes: Any,
) -> tuple[Path, int, list[Event]]:
    """Train while ``harm`` does its work: the run, its epochs and the events. Raises what the training raised."""
    epochs = 150
    while True:
        run, events, errors = where / f"harmed-{epochs}", list[Event](), list[BaseException]()

        def train(experiment: Config, told: list[Event] = events, failed: list[BaseException] = errors) -> None:
            try:
                driver.train(experiment, listen=told.append)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=train, args=(collective(blobs, run, epochs, **changes),))
        thread.start()
        try:
            harm(run, partial(_ended, thread))
        except TooQuickError:
            epochs *= 4
            continue
        finally:
            thread.join()
        if errors:
            raise errors[0]
        return run, epochs, events


def assert_a_death_changes_nothing(blobs: str, where: Path, worker: int, **changes: Any) -> None:
    """A worker is killed after the first commit: the run ends as one in a single process that nothing happened to."""

    def harm(run: Path, ended: Callable[[], bool]) -> None:
        os.kill(group(run, 1, ended, commits=1)[worker], signal.SIGKILL)
        group(run, 2, ended)

    run, epochs, _ = disturbed(blobs, where, harm, **changes)
    plain = where / "undisturbed"
    driver.train(collective(blobs, plain, epochs, **changes, runtime__runner="inline"))
    assert substance(run) == substance(plain)


def undisturbed(blobs: str, where: Path, epochs: int) -> dict[str, Any]:
    """The same in rounds mode."""
    run = where / "undisturbed"
    driver.train(collective(blobs, run, epochs, sync__mode="rounds", runtime__runner="inline"))
    return substance(run)
