"""Failures on a real cluster: a run ends in the bits of an inline run, or in a clear error that can be gone on from.

Nothing is left to chance or to a clock: tasks stop themselves in the midst of their work (`stopping_python`), drivers
kill themselves at named points (`killed_driver`), and what is done to them or to the cluster is done then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failures import USER, applications, hanging, lost, restart, running_applications, wait_until
from killed_driver import POINTS

from jobs import driver
from jobs.cluster.cluster import Cluster
from jobs.cluster.processes import containers_of, send
from nnlib.config.schema import Config
from nnlib.data.importing import from_arrays
from nnlib.storage import storage
from nnlib.storage.hdfs import HdfsStorage

HERE = Path(__file__).parent
HOME = "hdfs:///user/chaos tests"
DATA = f"{HOME}/data"
MINUTES = 300.0
"""For what is made of several starts of JVMs on a loaded machine."""

Away = Callable[..., contextlib.AbstractContextManager[None]]
"""`failures.lost` or `failures.hanging`."""

EXPERIMENT: dict[str, Any] = {
    "name": "chaos",
    "workers": 2,
    "data": {"path": DATA},
    "model": {"hidden": [8]},
    "train": {"epochs": 2, "epochs_per_round": 1, "batch_size": 16},
}


def write_data(address: str, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 300)
    x = (rng.normal(size=(3, 6))[y] + rng.normal(0.0, 0.7, (300, 6))).astype(np.float32)
    from_arrays(x, y, address, shards=4)


@pytest.fixture(scope="module")
def expected(used_hadoop: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The weights' hash of an inline run of the experiment; its dataset is in HDFS."""
    write_data(DATA)
    yield inline(EXPERIMENT, tmp_path_factory.mktemp("inline"))
    storage(HOME).delete("")


def inline(experiment: dict[str, Any], folder: Path) -> str:
    result = driver.train(Config.model_validate({**experiment, "run_dir": str(folder / "run")}))
    return str(result["model_sha256"])


class Scene:
    """A run on the cluster whose driver is a process of its own, and whose tasks stop where they are wanted to."""

    def __init__(self, cluster: Cluster, folder: Path, name: str) -> None:
        self.cluster = cluster
        self.run = f"{HOME}/runs/{name}"
        self.variables: dict[str, str] = {}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        for part in ("wanted", "stopped"):
            (folder / part).mkdir()
        self._experiment = {**EXPERIMENT, "runtime": {"cache_dir": str(folder / "cache")}}
        python = f"{sys.executable} {HERE / 'stopping_python.py'} {folder}"
        self._experiment["runtime"]["hadoop"] = {"python_bin": python, "uber": "off"}

    def configure(self, runtime: dict[str, Any], **other: Any) -> None:
        """Keys that differ from the experiment's."""
        hadoop = self._experiment["runtime"]["hadoop"] | runtime.pop("hadoop", {})
        self._experiment = {**self._experiment, **other}
        self._experiment["runtime"] = {**self._experiment["runtime"], **runtime, "hadoop": hadoop}

    def want(self, *names: str, batches: int | None = None) -> None:
        """From now on these attempts of tasks stop in the midst of their work."""
        for name in names:
            (self._folder / "wanted" / name).write_text("" if batches is None else str(batches))

    def start(self, *, point: str | None = None, resume: bool = False) -> None:
        """Start the driver, which kills itself at a point if one is named."""
        config = self._folder / "chaos.yaml"
        config.write_text(json.dumps(self._experiment), encoding="utf-8")
        program = ["-m", "jobs"] if point is None else [str(HERE / "killed_driver.py"), point]
        arguments = ["train", str(config), "-r", "hadoop", "--run-dir", self.run, "--json"]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, *program, *arguments, *(["--resume"] if resume else [])],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), **self.variables},
            )

    @property
    def _out(self) -> Path:
        return self._folder / "out"

    @property
    def _err(self) -> Path:
        return self._folder / "err"

    def stopped(self, name: str) -> int:
        """The process of an attempt, when it has stopped."""
        mark = self._folder / "stopped" / name

        def there() -> bool:
            assert mark.exists() or self._driver.poll() is None, self._err.read_text()
            return mark.exists() and state(int(mark.read_text())) == "T"

        wait_until(there, f"{name} is in the midst of its work", MINUTES)
        return int(mark.read_text())

    def harm(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to an attempt that has stopped: kill it, or let it go on."""
        send(self.stopped(name), number)

    def go_on(self, *names: str) -> None:
        for name in names:
            self.harm(name, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the driver from outside."""
        self._driver.kill()
        self._driver.wait()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._driver.send_signal(signal.SIGINT)

    @property
    def _driver(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def ended(self) -> int:
        """The driver's exit code, when it has ended."""
        return self._driver.wait(2 * MINUTES)

    def result(self) -> str:
        """The weights' hash, when all has gone well."""
        assert self.ended() == 0, self._err.read_text()
        return str(json.loads(self._out.read_text().splitlines()[-1])["model_sha256"])

    def error(self, code: int = 4) -> str:
        """What the user sees of a failure: one screen that says what to do."""
        assert self.ended() == code, self._err.read_text()
        lines = self._err.read_text().splitlines()
        text = "\n".join(lines[next(i for i, line in enumerate(lines) if line.startswith("nnjobs: ")) :])
        assert len(text.splitlines()) <= 30, text
        assert "what to do: " in text, text
        assert "End of LogType" not in text, text  # YARN's words around a log, here an empty one
        return text

    def told(self) -> str:
        return self._err.read_text()

    def nothing_left(self) -> None:
        """No application, container, scratch file or temporary file of the run is there."""
        assert storage(f"hdfs:///user/{USER}/.nnjobs/runs").names() == []
        wait_until(lambda: not running_applications(self.cluster), "no application runs")
        wait_until(lambda: not containers_of(self.cluster.folder), "no container runs")
        wait_until(lambda: storage(f"hdfs:///user/{USER}/.staging").names() == [], "nothing is staged")
        place = storage(self.run)
        assert isinstance(place, HdfsStorage)
        assert not [name for name in entries(place, place._path) if name.endswith(".tmp")]

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for mark in (self._folder / "stopped").iterdir():
            if (process := int(mark.read_text())) and state(process) == "T":
                send(process, signal.SIGKILL)


def entries(store: HdfsStorage, path: str) -> list[str]:
    """Everything below a path, temporary files too."""
    return [
        below
        for entry in store._client.list(path)
        for below in ([entry.name, *entries(store, f"{path}/{entry.name}")] if entry.directory else [entry.name])
    ]


def state(process: int) -> str | None:
    """A process's state as Linux calls it (T: stopped); None if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


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
        send(process.pid, signal.SIGKILL)
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
