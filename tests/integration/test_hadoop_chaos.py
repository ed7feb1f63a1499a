"""Failures on a real cluster: a run ends in the bits of an inline run, or in a clear error that can be gone on from.

Nothing is left to chance or to a clock: tasks stop themselves in the midst of their work (`stopping_python`), drivers
kill themselves at named points (`killed_driver`), and what is done to them or to the cluster is done then.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from failures import applications, hanging, lost, restart, running_applications, wait_until
from killed_driver import POINTS
from scene import DATA, EXPERIMENT, HOME, Scene, inline, state, write_data

from jobs.minicluster.cluster import Cluster
from jobs.minicluster.processes import containers_of, send_signal
from nnlib.storage import storage
from nnlib.storage.hdfs.storage import HdfsStorage

Away = Callable[..., contextlib.AbstractContextManager[None]]
"""`failures.lost` or `failures.hanging`."""


@pytest.fixture(scope="module")
def expected(used_hadoop: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The weights' hash of an inline run of the experiment; its dataset is in HDFS."""
    write_data(DATA)
    yield inline(EXPERIMENT, tmp_path_factory.mktemp("inline"))
    storage(HOME).delete("")


@pytest.fixture
def scene(fragile: Cluster, hadoop_env: dict[str, str], tmp_path: Path, expected: str) -> Iterator[Scene]:
    with contextlib.closing(Scene(fragile, tmp_path, tmp_path.name)) as made:
        yield made


# Tasks.


@pytest.mark.full
def test_a_reducer_is_killed(scene: Scene, expected: str) -> None:
    scene.want("train-1-r-0-0")
    scene.start()
    scene.harm("train-1-r-0-0")
    assert scene.result() == expected
    scene.nothing_left()


@pytest.mark.full
def test_a_mapper_hangs(scene: Scene, expected: str) -> None:
    scene.configure({"task_timeout_seconds": 20})
    scene.want("train-0-m-0-0")
    scene.start()
    hanging = scene.stopped("train-0-m-0-0")
    assert scene.result() == expected
    assert state(hanging) is None  # Hadoop has killed it
    scene.nothing_left()


@pytest.mark.full
def test_a_mapper_hangs_every_time(scene: Scene) -> None:
    scene.configure({"task_timeout_seconds": 10, "retries": 0})
    scene.want("train-0-m-1-0")
    scene.start()
    scene.stopped("train-0-m-1-0")
    error = scene.error()
    for part in ("a task hung: it showed no progress for 10 s", "worker ", "part-0000", "task_timeout_seconds"):
        assert part in error, error
    scene.nothing_left()


@pytest.mark.full
def test_a_speculative_twin(scene: Scene, expected: str) -> None:
    """One mapper lags so far behind the others that Hadoop starts a second one; both are alive, and both go on."""
    eager = {"minimum-allowed-tasks": "4", "speculative-cap-running-tasks": "1.0", "retry-after-no-speculate": "1000"}
    scene.configure({"hadoop": {"jobconf": {f"mapreduce.job.speculative.{name}": eager[name] for name in eager}}})
    scene.want("train-0-m-1-0", "train-0-m-1-1")
    scene.start()
    scene.stopped("train-0-m-1-0")
    scene.stopped("train-0-m-1-1")
    scene.go_on("train-0-m-1-0", "train-0-m-1-1")
    assert scene.result() == expected
    scene.nothing_left()


# The driver.


def test_a_mapper_is_killed_and_then_the_driver(scene: Scene, expected: str) -> None:
    """What the driver leaves would go on for ever, for one of its tasks has stopped."""
    scene.want("train-0-m-1-0", "train-1-m-0-0")
    scene.start()
    scene.harm("train-0-m-1-0")
    orphan = scene.stopped("train-1-m-0-0")
    assert storage(scene.run).exists("rounds/000001/manifest.json")
    (application,) = running_applications(scene.cluster)
    scene.kill()
    scene.configure({"hadoop": {"uber": "auto"}})
    scene.start(resume=True)
    assert scene.result() == expected
    assert f"ended its {application}" in scene.told()
    (found,) = [app for app in applications(scene.cluster) if app["id"] == application]
    assert found["finalStatus"] == "KILLED"
    wait_until(lambda: state(orphan) is None, "its tasks are ended")
    scene.nothing_left()


@pytest.mark.full
@pytest.mark.parametrize("point", POINTS)
def test_the_driver_is_killed(scene: Scene, expected: str, point: str) -> None:
    scene.configure({"hadoop": {"uber": "auto"}})
    scene.start(point=point)
    assert scene.ended() == -signal.SIGKILL
    scene.start(resume=True)
    assert scene.result() == expected
    assert ("round 2/2" in scene.told()) == (point != "after commit")  # what is committed is not done again
    scene.nothing_left()


@pytest.mark.full
def test_the_driver_is_interrupted(scene: Scene, expected: str) -> None:
    """Nothing is left, though its task does not even hear that it is to end."""
    scene.want("train-1-m-1-0")
    scene.start()
    mapper = scene.stopped("train-1-m-1-0")
    scene.interrupt()
    assert scene.ended() == 130
    wait_until(lambda: state(mapper) is None, "its tasks are ended")
    scene.nothing_left()
    scene.start(resume=True)
    assert scene.result() == expected
    scene.nothing_left()


# The daemons.


@pytest.mark.full
@pytest.mark.parametrize("name", ["nodemanager", "resourcemanager", "namenode", "datanode", "historyserver"])
def test_a_daemon_is_killed_and_starts_again(scene: Scene, expected: str, name: str) -> None:
    scene.want("train-0-m-1-0")
    scene.start()
    scene.stopped("train-0-m-1-0")
    restart(scene.cluster, name)
    scene.go_on("train-0-m-1-0")
    assert scene.result() == expected
    scene.nothing_left()


@pytest.mark.full
@pytest.mark.parametrize(
    ("away", "name"),
    [(lost, "namenode"), (lost, "resourcemanager"), (hanging, "namenode")],
    ids=["no namenode", "no resourcemanager", "hanging namenode"],
)
def test_a_daemon_is_away_while_it_is_needed(scene: Scene, expected: str, away: Away, name: str) -> None:
    """The tasks go on while nobody answers them."""
    scene.want("train-0-m-1-0")
    scene.start()
    mapper = scene.stopped("train-0-m-1-0")
    with away(scene.cluster, name):
        scene.go_on("train-0-m-1-0")
        wait_until(lambda: state(mapper) is None, "it has done its work")
    assert scene.result() == expected
    scene.nothing_left()


@pytest.mark.full
def test_a_node_crashes_with_all_that_runs_on_it(scene: Scene, expected: str) -> None:
    """The job's master is lost, too: YARN starts another one, which goes on with the job."""
    scene.want("train-0-m-1-0")
    scene.start()
    scene.stopped("train-0-m-1-0")
    scene.cluster.kill_daemon("nodemanager")
    for process in containers_of(scene.cluster.folder):
        send_signal(process.pid, signal.SIGKILL)
    scene.cluster.start_daemon("nodemanager")
    assert scene.result() == expected
    scene.nothing_left()


# The storage.


@pytest.mark.full
def test_a_datanode_is_lost_with_the_only_copies(scene: Scene, expected: str) -> None:
    scene.variables["NNJOBS_HDFS_WAIT"] = "5"
    scene.want("train-1-m-0-0")
    scene.start()
    scene.stopped("train-1-m-0-0")
    with lost(scene.cluster, "datanode"):
        scene.go_on("train-1-m-0-0")
        error = scene.error()
    assert "DataNode" in error and "--resume" in error, error
    scene.variables.clear()
    scene.start(resume=True)
    assert scene.result() == expected
    scene.nothing_left()


def set_space_quota(address: str, size: int) -> None:
    place = storage(address)
    assert isinstance(place, HdfsStorage)
    place._client._call("PUT", "SETQUOTA", place._path, {"storagespacequota": str(size)})  # type: ignore[attr-defined]


@pytest.mark.full
@pytest.mark.parametrize("full", ["run", "scratch"])
def test_a_space_quota_is_exceeded(scene: Scene, expected: str, full: str) -> None:
    """The round cannot be committed, or the job not write its output."""
    scratch = f"{HOME}/scratch {full}"
    storage(scratch).write("here", b"")
    scene.configure({"hadoop": {"scratch": scratch}})
    scene.want("train-1-m-0-0")
    scene.start()
    scene.stopped("train-1-m-0-0")
    address = scene.run if full == "run" else scratch
    set_space_quota(address, 1)
    scene.go_on("train-1-m-0-0")
    error = scene.error()
    assert "quota" in error and "--resume" in error, error
    set_space_quota(address, 1 << 40)
    scene.start(resume=True)
    assert scene.result() == expected
    assert storage(f"{scratch}/runs").names() == []
    scene.nothing_left()


def corrupt(cluster: Cluster, address: str, name: str) -> bytes:
    """Damage a file of one block on the DataNode's disk; what it held."""
    good = storage(address).read(name)
    (block,) = [path for path in (cluster.folder / "data/blocks").rglob("blk_*") if path.read_bytes() == good]
    block.write_bytes(good[:100] + bytes([good[100] ^ 255]) + good[101:])
    return good


@pytest.mark.full
@pytest.mark.parametrize("when", ["before the run", "in a round"])
def test_a_block_is_corrupt(scene: Scene, tmp_path: Path, when: str) -> None:
    data = f"{HOME}/data {when}"
    write_data(data, seed=len(when))
    experiment = {**EXPERIMENT, "data": {"path": data}}
    expected = inline(experiment, tmp_path)
    scene.configure({"cache_mb": 0}, data={"path": data})
    if when == "in a round":
        scene.want("train-0-m-0-0")
        scene.start()
        scene.stopped("train-0-m-0-0")
    good = corrupt(scene.cluster, data, "part-00003.parquet")
    if when == "in a round":
        scene.go_on("train-0-m-0-0")
    else:
        scene.start()
    error = scene.error()
    assert "part-00003.parquet" in error and "block" in error, error
    storage(data).write("part-00003.parquet", good)
    scene.start(resume=True)
    assert scene.result() == expected
    scene.nothing_left()
