"""Runs on a cluster of several hosts: the driver is a process on the client's host, tasks stop where a test wants it.

It is `scene.Scene` where processes have a host besides a number.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from failures import wait_until
from host_cluster import HostCluster
from hosts import REPOSITORY, Host
from processes import started
from scene import EXPERIMENT, MINUTES, state

from nnlib.storage import storage

HERE = Path(__file__).parent
HOME = "hdfs:///lost nodes"
DATA = f"{HOME}/data"
BASE: dict[str, Any] = {**EXPERIMENT, "workers": 3, "data": {"path": DATA}}


class HostScene:
    """One run, which a test hurts."""

    def __init__(self, cluster: HostCluster, folder: Path, experiment: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.run = f"{HOME}/runs/{folder.name}"
        self._folder = folder
        self._started = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        for part in ("wanted", "stopped"):
            (folder / part).mkdir()
        python = f"{sys.executable} {HERE / 'stopping_python.py'} {folder}"
        hadoop = {"python_bin": python, "uber": "off", "workers_per_task": 1}
        runtime = {"cache_dir": str(folder / "cache"), "hadoop": hadoop}
        self._experiment = {**BASE, "runtime": runtime, **experiment}

    def want(self, *names: str, round_: int = 0) -> None:
        """From now on these attempts of tasks stop in the midst of their work, in a round (from 0)."""
        for name in names:
            (self._folder / "wanted" / name).write_text(f"round {round_}" if round_ else "")

    def start(self, *, resume: bool = False) -> None:
        """Start the driver on the client's host."""
        config = self._folder / "run.yaml"
        config.write_text(json.dumps(self._experiment), encoding="utf-8")
        options = ["--run-dir", self.run, "--json", *(["--resume"] if resume else [])]
        command = ["env", "-C", str(self._folder), sys.executable, "-m", "jobs", "train", str(config), "-r", "hadoop"]
        environment = {**os.environ, **self.cluster.environment(), "PYTHONPATH": str(REPOSITORY)}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = self._started.enter_context(
                started(
                    self.cluster.client.command(*command, *options),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=environment,
                )
            )

    @property
    def _out(self) -> Path:
        return self._folder / "out"

    @property
    def _err(self) -> Path:
        return self._folder / "err"

    def stopped(self, name: str) -> tuple[Host, int]:
        """Where an attempt has stopped: its host, and its process there."""
        mark = self._folder / "stopped" / name

        def is_there() -> bool:
            assert mark.exists() or self._driver.poll() is None, self.told()
            return mark.exists()

        wait_until(is_there, f"{name} is in the midst of its work", MINUTES)
        number, node = mark.read_text().split()
        host = self.cluster.network[node.partition(".")[0]]
        process = 0

        def has_stopped() -> bool:
            nonlocal process
            process = process or host.process(int(number))
            return state(process) == "T"

        wait_until(has_stopped, f"{name} has stopped", 20.0)
        return host, process

    def newly_stopped(self) -> list[int]:
        """The processes that have stopped by now and stand still."""
        marks = [mark.read_text().split() for mark in (self._folder / "stopped").iterdir() if mark.name[0] != "."]
        hosts = [(self.cluster.network[node.partition(".")[0]], int(number)) for number, node in marks]
        found = [host.process(number) for host, number in hosts if host.is_on]
        return [process for process in found if state(process) == "T"]

    @property
    def has_ended(self) -> bool:
        """Whether the driver has ended."""
        return self._driver.poll() is not None

    def go_on(self, *processes: int) -> None:
        """Let stopped processes go on; those that have ended meanwhile are left alone."""
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    def application(self) -> str:
        """The id of the running application."""
        (name,) = self.cluster.running_applications()
        return name

    @property
    def _driver(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def ended(self, seconds: float = 2 * MINUTES) -> int:
        """The driver's exit code, when it has ended."""
        try:
            return self._driver.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the driver has not ended after {seconds:.0f} s: {self.told()}") from None

    def result(self, seconds: float = 2 * MINUTES) -> str:
        """The weights' hash, when all has gone well."""
        assert self.ended(seconds) == 0, self.told()
        return str(json.loads(self._out.read_text().splitlines()[-1])["model_sha256"])

    def told(self) -> str:
        """What the user saw of the run so far."""
        return self._err.read_text()

    def wait_for_words(self, pattern: str, seconds: float = MINUTES) -> re.Match[str]:
        """What the user saw that fits a pattern, once it is there."""
        found: list[re.Match[str]] = []

        def is_told() -> bool:
            if match := re.search(pattern, self.told()):
                found.append(match)
            assert found or self._driver.poll() is None, self.told()
            return bool(found)

        wait_until(is_told, f"{pattern!r} is told", seconds)
        return found[0]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the run's journal says of one kind of event."""
        data = self.cluster.client.visit(lambda: storage(self.run).read("events.jsonl"))
        return [event for event in map(json.loads, data.splitlines()) if event["event"] == kind]

    def generation(self) -> int:
        """How often the group of a collective run has been formed."""

        def newest() -> int:
            place = storage(f"{self.run}/collective")
            jobs = [name for name in place.names() if re.fullmatch("[0-9a-f]{8}", name)]
            names = [name for job in jobs for name in storage(f"{self.run}/collective/{job}").names()]
            formed = re.findall(r"generation-(\d{6})-worker-", "\n".join(names))
            complete = [number for number in set(formed) if formed.count(number) == self._experiment["workers"]]
            return max(map(int, complete), default=0)

        return self.cluster.client.visit(newest)

    def close(self) -> None:
        """End the driver and what has stopped."""
        self._started.close()
        for mark in (self._folder / "stopped").iterdir():
            number, node = mark.read_text().split()
            host = self.cluster.network[node.partition(".")[0]]
            if host.is_on and state(process := host.process(int(number))) == "T":
                os.kill(process, signal.SIGKILL)
