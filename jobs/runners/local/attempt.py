"""One attempt at a local task: its files, its process, its outcome."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.runners.lines import decode_record, encode_record
from jobs.runners.local.chaos import Faults
from nnlib.core.errors import MismatchError

ATTEMPT = "NNJOBS_ATTEMPT"
"""Environment variable with the number of the attempt that a task's process is, from 0."""
TAIL_LINES, TAIL_BYTES, TAIL_COLUMNS = 12, 1 << 16, 200


class Process(Protocol):
    """What the pool needs of a task's process, as `subprocess.Popen` has it."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code (negative: the signal that ended it). Raises `TimeoutExpired`."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal to the process."""


StartProcess = Callable[..., Process]
"""Starts ``arguments`` with stdin, stdout, stderr, cwd, env, as `subprocess.Popen` does."""


@dataclass(frozen=True)
class Task:
    """A map or reduce task: its command and its files.

    ``job`` is the name of its job within the run ("train 3"), ``round`` the job's round, if it has one. ``limited``:
    whether ``runtime.task_timeout_seconds`` holds for the task.
    """

    job: str
    round: int | None
    kind: str
    number: int
    arguments: Sequence[str]
    directory: Path
    environment: dict[str, str]
    input: Path
    output: Path
    limited: bool = True

    @property
    def name(self) -> str:
        """The task's name within its job: "worker 3"."""
        return f"{self.kind} {self.number}"

    @property
    def label(self) -> str:
        """The task's name for people: "worker 3, round 2"."""
        return f"{self.name}, {self.job}" if self.round is None else f"{self.name}, round {self.round}"

    @property
    def where(self) -> dict[str, Any]:
        """The facts that tell an error's reader which task failed."""
        return {self.kind: self.number, "round": self.round}


@dataclass
class Attempt:
    """One run of a task's process, the ``number``-th (from 0). ``failure`` is the reason why its output cannot be used,
    in words."""

    folder: Path
    faults: Faults
    number: int
    failure: str | None = None

    @property
    def output(self) -> Path:
        """The file of the task's standard output."""
        return self.folder / "output"

    @property
    def messages(self) -> Path:
        """The file of the task's standard error."""
        return self.folder / "stderr"


def wait_for(process: Process, seconds: float | None) -> int | None:
    """Wait at most ``seconds``; return the exit code, or None if the process has not ended."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def kill(process: Process) -> None:
    """Kill a process and wait until it has ended."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def same_results(first: Path, second: Path) -> bool:
    """Return whether two outputs of a task agree in everything but times."""
    with first.open("rb") as one, second.open("rb") as other:
        pairs = itertools.zip_longest(one, other, fillvalue=b"")
        return all(a == b or _without_seconds(a) == _without_seconds(b) for a, b in pairs)


def _without_seconds(line: bytes) -> bytes:
    key, _, value = line.partition(b"\t")
    try:
        worker, record = decode_record(value)
    except MismatchError:
        return line  # no record: weights
    record.pop("seconds", None)
    return key + b"\t" + encode_record(worker, record)


def last_lines(path: Path) -> list[str]:
    """Return the last lines of a task's messages, at most a part of a screen."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return [line[:TAIL_COLUMNS] for line in text.strip().splitlines()[-TAIL_LINES:]]
