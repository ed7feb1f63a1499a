"""The processes of a cluster, known by a mark in their command lines.

Files of process ids would not do: a mark exists from the moment a process starts, whatever happens to its starter, and
a process that got the id of a dead one does not carry it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nnlib.core.errors import JobError

PROC = Path("/proc")
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class ProcessInfo:
    """A process: its id, its group's, and its arguments joined by spaces."""

    pid: int
    group: int
    command: str


def user_processes() -> list[ProcessInfo]:
    """List this user's living processes; from /proc where there is one, else from ``ps``."""
    return list(_from_proc() if (PROC / "self/stat").exists() else _from_ps())


def mark_of(folder: Path) -> str:
    """Return the first arguments of every daemon of the cluster in a folder; the daemon's name follows them."""
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return f"-Dnnjobs.cluster={digest} -Dnnjobs.daemon="


def daemons_of(folder: Path, processes: Iterable[ProcessInfo] | None = None) -> dict[str, ProcessInfo]:
    """Return the running daemons of the cluster, by name."""
    mark = f"/bin/java {mark_of(folder)}"
    daemons = {}
    for process in user_processes() if processes is None else processes:
        _, marked, rest = process.command.partition(mark)
        if marked:
            daemons[rest.split(" ", 1)[0]] = process
    return daemons


def containers_of(folder: Path) -> list[ProcessInfo]:
    """List the processes of the cluster's containers: their scripts and JVMs, and all in the same process groups."""
    resolved = folder.resolve()
    jvm = f" -Dyarn.app.container.log.dir={resolved}/nm/logs/"
    script = f"{resolved}/nm/local/"
    processes = user_processes()
    groups = {
        process.group
        for process in processes
        if jvm in process.command
        or (script in process.command and "default_container_executor" in process.command.split(script, 1)[1])
    }
    # On Linux each container is a session, so its group is never that of a person's shell; elsewhere it is the
    # NodeManager's, which no shell is in either: daemons start in new sessions.
    return [process for process in processes if process.group in groups and process.group != os.getpgid(0)]


def end_processes(find: Callable[[], Iterable[ProcessInfo]], grace: float) -> int:
    """End the processes that ``find`` returns, until it returns none: by SIGTERM, after ``grace`` seconds by SIGKILL.

    Returns:
        How many had to be killed.

    Raises:
        JobError: some do not end (stuck in the kernel).
    """
    asked: set[int] = set()
    killed: set[int] = set()
    start = time.monotonic()
    while alive := list(find()):
        waited = time.monotonic() - start
        if waited > grace + 10:
            raise JobError(f"cannot end the processes {', '.join(str(process.pid) for process in alive)}")
        for process in alive:
            if waited >= grace:
                send_signal(process.pid, signal.SIGKILL)
                killed.add(process.pid)
            elif process.pid not in asked:
                send_signal(process.pid, signal.SIGTERM)
                asked.add(process.pid)
        time.sleep(POLL_SECONDS)
    return len(killed)


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _from_proc() -> Iterable[ProcessInfo]:
    user = os.getuid()
    for folder in PROC.glob("[0-9]*"):
        try:
            if folder.stat().st_uid != user:
                continue
            # An ended process that nobody has waited for has no arguments any more.
            if command := (folder / "cmdline").read_bytes():
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                text = command.replace(b"\0", b" ").decode(errors="replace")
                yield ProcessInfo(int(folder.name), int(fields[2]), text)
        except OSError:
            continue  # it ended while we looked


def _from_ps() -> Iterable[ProcessInfo]:
    command = ["ps", "-U", str(os.getuid()), "-ww", "-o", "pid=,pgid=,command="]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    for line in done.stdout.splitlines():
        pid, group, *text = line.split(None, 2)  # one that just begins has no command yet
        yield ProcessInfo(int(pid), int(group), "".join(text) + " ")
