"""One attempt at a local task: its files, its process, what became of it."""

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
"""Environment variable that tells a task's process which attempt it is, from 0."""
TAIL_LINES, TAIL_BYTES, TAIL_COLUMNS = 12, 1 << 16, 200


class Process(Protocol):
    """What is needed of a task's process: `subprocess.Popen` has it."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit code (negative: the signal that ended it). Raises `subprocess.TimeoutExpired`."""

    def send_signal(self, number: int, /) -> None: ...


StartProcess = Callable[..., Process]
"""Starts ``arguments`` with stdin, stdout, stderr, cwd, env, as `subprocess.Popen` does."""


@dataclass(frozen=True)
class Task:
    """A map or reduce task: its command and its files. ``job`` names its job within the run ("train 3"). ``limited``:
    whether `runtime.task_timeout_seconds` holds for it; ``round``: which one, where the job is one."""

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
        return f"{self.kind} {self.number}"

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.name}, {self.job}" if self.round is None else f"{self.name}, round {self.round}"

    @property
    def where(self) -> dict[str, Any]:
        """The task's place, for an error."""
        return {self.kind: self.number, "round": self.round}


@dataclass
class Attempt:
    """One run of a task's process, the ``number``-th (from 0); ``failure`` says in words why its output cannot be
    used."""

    folder: Path
    faults: Faults
    number: int
    failure: str | None = None

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def messages(self) -> Path:
        return self.folder / "stderr"


def wait_for(process: Process, seconds: float | None) -> int | None:
    """The exit code, or None if the process has not ended by then."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def kill(process: Process) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def same_results(first: Path, second: Path) -> bool:
    """Whether two outputs of a task agree in all but the times it took."""
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
    """The end of what a task has written for people, at most a part of a screen."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return [line[:TAIL_COLUMNS] for line in text.strip().splitlines()[-TAIL_LINES:]]
