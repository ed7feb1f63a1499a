"""The collective mode on a real cluster: the bits of inline rounds, whoever is lost on the way."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from failures import USER, running_applications, wait_until
from scene import DATA, EXPERIMENT, HOME, MINUTES, Scene, inline, state, write_data

from jobs.minicluster.cluster import Cluster
from jobs.minicluster.readiness import fetch
from nnlib.storage import storage
from nnlib.storage.hdfs.storage import HdfsStorage

ROUNDS, BATCHES = 16, 210
"""A worker's round is 18 batches (of three workers) or 26 (of two): it stops after 8 rounds, behind a commit."""

COLLECTIVE: dict[str, Any] = {
    "train": {"epochs": ROUNDS, "epochs_per_round": 1, "batch_size": 8},
    "checkpoint": {"every": 2},
    "split": {"seeds": [0, 1]},
}


@pytest.fixture(scope="module")
def dataset(used_hadoop: Cluster) -> Iterator[None]:
    write_data(DATA)
    yield
    storage(HOME).delete("")


@pytest.fixture
def scene(fragile: Cluster, hadoop_env: dict[str, str], tmp_path: Path, dataset: None) -> Iterator[Scene]:
    with contextlib.closing(Scene(fragile, tmp_path, tmp_path.name)) as made:
        configure(made, {"hadoop": {"workers_per_task": 1}})
        yield made


def configure(
    scene: Scene, runtime: dict[str, Any] | None = None, sync: dict[str, Any] | None = None, **other: Any
) -> None:
    scene.configure(runtime or {}, sync={"mode": "collective", **(sync or {})}, **(COLLECTIVE | other))


def events(scene: Scene, kind: str) -> list[dict[str, Any]]:
    """What the run's journal says of one kind of event."""
    lines = storage(scene.run).read("events.jsonl").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def rounds_inline(folder: Path, **other: Any) -> str:
    """The weights' hash of the same training in inline rounds."""
    (folder / "inline").mkdir()
    return inline({**EXPERIMENT, **COLLECTIVE, **other}, folder / "inline")


@pytest.mark.parametrize(
    ("workers", "splits", "shared", "tasks"),
    [
        (3, [0, 1], 2, 2),  # one task of two workers, one of one
        pytest.param(2, [0, 1], "auto", 1, marks=pytest.mark.full),
        pytest.param(4, [0, 1, 2], "auto", 1, marks=pytest.mark.full),
        pytest.param(4, [0, 1, 2], 1, 4, marks=pytest.mark.full),
        pytest.param(1, [0], "auto", 1, marks=pytest.mark.full),
    ],
)
def test_the_bits_of_inline_rounds(
    workers: int, splits: list[int], shared: int | str, tasks: int, scene: Scene, tmp_path: Path
) -> None:
    shape: dict[str, Any] = {"workers": workers, "split": {"seeds": splits}}
    configure(scene, {"hadoop": {"workers_per_task": shared}}, **shape)
    scene.start()
    assert scene.result() == rounds_inline(tmp_path, **shape)
    (job,) = events(scene, "job")  # it scored the final models, too
    assert job["map_attempts"] == tasks
    assert job["counters"]["bytes"]
    assert events(scene, "round")[-1]["round"] == ROUNDS
    scene.nothing_left()
    assert "collective" not in storage(scene.run).names()


@pytest.mark.full
@pytest.mark.parametrize(
    "sync",
    [{"overlap": 1, "overlap_drain": 4}, {"precision": "int8", "error_feedback": True}, {"every": "batch"}],
    ids=lambda sync: next(iter(sync)),
)
def test_the_bits_of_an_inline_group(sync: dict[str, Any], scene: Scene, tmp_path: Path) -> None:
    configure(scene, {"hadoop": {"workers_per_task": 2}}, sync, workers=3)
    scene.start()
    assert scene.result() == rounds_inline(tmp_path, workers=3, sync={"mode": "collective", **sync})
    scene.nothing_left()


def group(scene: Scene) -> HdfsStorage:
    """Where the workers of the running job meet."""
    place = storage(f"{scene.run}/collective")
    (job,) = [name for name in place.names() if re.fullmatch("[0-9a-f]{8}", name)]
    found = storage(f"{scene.run}/collective/{job}")
    assert isinstance(found, HdfsStorage)
    return found


def permission(scene: Scene, path: str) -> str:
    address = f"/webhdfs/v1{quote(path)}?op=GETFILESTATUS&user.name={USER}"
    return str(fetch(scene.cluster.settings, "namenode_http", address)["FileStatus"]["permission"])


def processes(place: HdfsStorage, generation: int) -> dict[int, int]:
    """Worker -> process of those who stand in a generation."""
    found = {}
    for name in place.names():
        if name.startswith(f"generation-{generation:06d}"):
            member = json.loads(place.read(name))
            found[member["worker"]] = json.loads(place.read(f"task-{member['incarnation']}.json"))["process"]
    return found


@pytest.mark.full
def test_a_worker_is_killed(scene: Scene, tmp_path: Path) -> None:
    """The others keep their processes, with the rows in them; only the owner of the run can read the group's key."""
    configure(scene, workers=3)
    scene.want("collective-0-m-1-0", batches=BATCHES)
    scene.want("collective-0-m-1-1")
    scene.start()
    process = scene.stopped("collective-0-m-1-0")
    place = group(scene)
    assert [permission(scene, f"{place._path}{name}") for name in ("/key.json", "")] == ["600", "700"]
    before = processes(place, 1)
    (lost,) = [worker for worker in before if before[worker] == process]  # tasks are not numbered as workers are
    scene.harm("collective-0-m-1-0")
    scene.stopped("collective-0-m-1-1")
    after = processes(place, 2)
    assert {worker for worker in before if after[worker] != before[worker]} == {lost}
    scene.go_on("collective-0-m-1-1")
    assert scene.result() == rounds_inline(tmp_path, workers=3)
    assert [event["worker"] for event in events(scene, "lost")] == [lost]
    scene.nothing_left()


@pytest.mark.full
@pytest.mark.parametrize("workers", [2, 3])
def test_a_worker_of_a_shared_task_is_killed(workers: int, scene: Scene, tmp_path: Path) -> None:
    """It takes those of its task along: all of the group, or two of three."""
    configure(scene, {"hadoop": {"workers_per_task": 2}}, workers=workers)
    # Of three, the task of one may stop, too: both tasks have the same work.
    scene.want("collective-0-m-0-0", batches=BATCHES)
    scene.want("collective-0-m-0-1")
    scene.start()
    process = scene.stopped("collective-0-m-0-0")
    place = group(scene)
    before = processes(place, 1)
    others = set(before.values()) - {process}
    scene.harm("collective-0-m-0-0")
    scene.stopped("collective-0-m-0-1")
    after = processes(place, 2)
    lost = {worker for worker in before if after[worker] != before[worker]}
    assert process in {before[worker] for worker in lost}
    assert len(lost) in (1, 2) and len(before) - len(lost) == len(others & set(after.values()))
    scene.go_on("collective-0-m-0-1")
    assert scene.result() == rounds_inline(tmp_path, workers=workers)
    scene.nothing_left()


@pytest.mark.full
@pytest.mark.parametrize(("task", "shared"), [(0, 1), (1, 1), (0, 2)])
def test_a_worker_hangs(task: int, shared: int, scene: Scene, tmp_path: Path) -> None:
    configure(scene, {"hadoop": {"workers_per_task": shared}}, {"worker_timeout_seconds": 5})
    scene.want(f"collective-0-m-{task}-0", batches=BATCHES)
    scene.start()
    hanging = scene.stopped(f"collective-0-m-{task}-0")
    assert scene.result() == rounds_inline(tmp_path)
    assert state(hanging) is None  # its container was ended
    assert 1 <= len(events(scene, "lost")) <= shared  # with its container those who share it end
    scene.nothing_left()


@pytest.mark.full
def test_the_driver_is_killed(scene: Scene, tmp_path: Path) -> None:
    """Its workers find that out by themselves, and end; another driver goes on."""
    scene.want("collective-0-m-1-0", batches=BATCHES)
    scene.start()
    scene.stopped("collective-0-m-1-0")
    scene.kill()
    scene.go_on("collective-0-m-1-0")
    wait_until(lambda: not running_applications(scene.cluster), "the job has ended", MINUTES)
    scene.start(resume=True)
    assert scene.result() == rounds_inline(tmp_path)
    assert events(scene, "start")[1]["round"] > 0
    scene.nothing_left()


ONE_SLOT = {"hadoop": {"memory_mb": 2048}}
"""Containers so large that only one besides the master fits."""


@pytest.mark.full
def test_too_few_slots(scene: Scene) -> None:
    configure(scene, dict(ONE_SLOT), {"gang_timeout_seconds": 20})
    scene.start()
    error = scene.error()
    assert re.search("only [01] of 2 workers came to run at once within 20 s", error), error
    assert "sync.gang_fallback" in error, error
    scene.nothing_left()


@pytest.mark.full
def test_too_few_slots_and_then_rounds(scene: Scene, tmp_path: Path) -> None:
    configure(scene, dict(ONE_SLOT), {"gang_timeout_seconds": 20, "gang_fallback": "rounds"}, train={"epochs": 1})
    scene.start()
    assert scene.result() == rounds_inline(tmp_path, train={"epochs": 1})
    assert "going on in rounds mode from round 0" in scene.told()
    scene.nothing_left()
