"""A cluster, and the runs that are hurt on it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from failures import USER, running_applications, wait_until
from processes import started

from jobs.driver import driver
from jobs.minicluster.cluster import Cluster
from jobs.minicluster.processes import containers_of, send_signal
from nnlib.config.schema import Config
from nnlib.data.importing.import_dataset import from_arrays
from nnlib.storage import storage
from nnlib.storage.hdfs.storage import HdfsStorage

HOME = "hdfs:///user/chaos tests"


DATA = f"{HOME}/data"


MINUTES = 300.0
"""For what is made of several starts of JVMs on a loaded machine."""


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


def inline(experiment: dict[str, Any], folder: Path) -> str:
    result = driver.train(Config.model_validate({**experiment, "run_dir": str(folder / "run")}))
    return str(result.model_sha256)


class Scene:
    """A run on the cluster whose driver is a process of its own, and whose tasks stop where they are wanted to."""

    def __init__(self, cluster: Cluster, folder: Path, name: str) -> None:
        self.cluster = cluster
        self.run = f"{HOME}/runs/{name}"
        self.variables: dict[str, str] = {}
        self._folder = folder
        self._started = contextlib.ExitStack()
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
            self._process = self._started.enter_context(
                started(
                    [sys.executable, *program, *arguments, *(["--resume"] if resume else [])],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=self._folder,
                    env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), **self.variables},
                )
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
            return mark.exists() and state(int(mark.read_text().split()[0])) == "T"

        wait_until(there, f"{name} is in the midst of its work", MINUTES)
        return int(mark.read_text().split()[0])

    def harm(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to an attempt that has stopped: kill it, or let it go on."""
        send_signal(self.stopped(name), number)

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
        self._started.close()
        for mark in (self._folder / "stopped").iterdir():
            if (process := int(mark.read_text().split()[0])) and state(process) == "T":
                send_signal(process, signal.SIGKILL)


def state(process: int) -> str | None:
    """A process's state as Linux calls it (T: stopped); None if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


HERE = Path(__file__).parent


def entries(store: HdfsStorage, path: str) -> list[str]:
    """Everything below a path, temporary files too."""
    return [
        below
        for entry in store._client.list(path)
        for below in ([entry.name, *entries(store, f"{path}/{entry.name}")] if entry.directory else [entry.name])
    ]
