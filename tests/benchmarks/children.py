"""Run programs as a user would, and see what they take: seconds, processor seconds, memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
NNJOBS = [sys.executable, "-m", "jobs"]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Run:
    """A finished program: what it printed, wall and processor seconds (its children's too)."""

    output: str
    seconds: float
    processor_seconds: float

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object of the last line."""
        found: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return found


def environment() -> dict[str, str]:
    """This process's environment with one BLAS thread, and compiled modules kept, as everywhere."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": path}


def run(command: Sequence[str], folder: Path) -> Run:
    """Run a program to its end in ``folder``; `RuntimeError` with what it wrote if it fails."""
    before = os.times()
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    after = os.times()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(done.stdout, seconds, spent)


def nnjobs(*arguments: str | Path, folder: Path) -> Run:
    return run([*NNJOBS, *map(str, arguments)], folder)


class Memory:
    """The largest resident memory of each process in a tree, in MB (10^6 bytes), by the kernel's own high-water mark.

    Each process is looked at every ``interval`` seconds, and the mark keeps what lay between two looks; a process that
    lives shorter than that may be missed.
    """

    def __init__(self, interval: float = 0.02) -> None:
        self.peaks: dict[int, float] = {}
        self._interval = interval

    @contextlib.contextmanager
    def watching(self, process: int) -> Iterator[None]:
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(psutil.Process(process), over))
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _watch(self, root: psutil.Process, over: threading.Event) -> None:
        while not over.wait(self._interval):
            with contextlib.suppress(psutil.Error):
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error, OSError):
                        self.peaks[process.pid] = max(self.peaks.get(process.pid, 0.0), _high_water(process))


def _high_water(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        for line in status.read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return float(process.memory_info().rss) / 1e6


def peak_memory(*arguments: str | Path, folder: Path) -> tuple[list[float], float]:
    """Run an ``nnjobs`` command: the peak of each of its processes in MB, largest first, and its seconds."""
    began = time.perf_counter()
    with (folder / "stderr").open("w+") as errors:
        process = subprocess.Popen(
            [*NNJOBS, *map(str, arguments)],
            cwd=folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        memory = Memory()
        with memory.watching(process.pid):
            code = process.wait()
        if code:
            errors.seek(0)
            raise RuntimeError(
                f"nnjobs {' '.join(map(str, arguments))} ended with code {code}:\n{errors.read()[-2000:]}"
            )
    return sorted((round(peak, 1) for peak in memory.peaks.values()), reverse=True), time.perf_counter() - began
