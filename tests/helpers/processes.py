"""Processes that a test starts, and what Linux's /proc knows about them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

MARK = "NNJOBS_TEST_PROCESS"
"""A variable in the environment of a process that a test starts: its descendants inherit it and are found by it."""

SECONDS = 20.0
"""Killed processes must be gone by then."""


@contextlib.contextmanager
def started(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Start a process for a test, as the leader of a session; kill it and all its descendants when the block ends.

    Whatever happens in the block, an assertion that fails or Ctrl-C, no process is left: also none that the started
    one put into another session, or that its death made an orphan.

    Ctrl-C and the end of the terminal work for the process as in a terminal, even if the tests themselves ignore them,
    as under ``nohup bootstrap/test.sh &``.

    Args:
        command: the program and its arguments.
        env: its environment; None: this process's.
        options: other arguments of `subprocess.Popen`.
    """
    mark = uuid.uuid4().hex
    environment = {**(os.environ if env is None else env), MARK: mark}
    with _default_signals():
        process = subprocess.Popen([str(part) for part in command], env=environment, start_new_session=True, **options)
    try:
        yield process
    finally:
        process.kill()
        kill_marked(mark)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not sent yet to a process that is gone
                    stream.close()


@contextlib.contextmanager
def _default_signals() -> Iterator[None]:
    """Let a program that is started in the block find no ignored signal: a handler, unlike SIG_IGN, isn't inherited."""
    ignored = [
        number
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
        if signal.getsignal(number) == signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def marked(mark: str, variable: str = MARK) -> list[psutil.Process]:
    """The living processes in whose environment the variable has this value."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(variable) == mark and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def kill_marked(mark: str) -> None:
    """Kill the processes with this value of `MARK` until there are none: one may fork while it is looked for.

    Raises:
        AssertionError: some do not end.
    """
    end = time.monotonic() + SECONDS
    while left := marked(mark):
        assert time.monotonic() < end, f"processes that do not end: {left}"
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)


def in_session(session: int) -> list[int]:
    """The ids of a session's processes, without zombies."""
    processes = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if int(fields[3]) == session and fields[0] != "Z":
            processes.append(int(stat.parent.name))
    return processes


def alive(process: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(process: int, seconds: float = SECONDS) -> bool:
    """Whether a process ends in that time."""
    end = time.monotonic() + seconds
    while alive(process) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(process)
