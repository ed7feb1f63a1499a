"""The processes of a cluster, found by what stands in their command lines.

Not by files of process ids: a mark is there from the moment a process starts, whatever became of its starter, and a
process that got the id of a dead one does not carry it.
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
class Process:
    """A process: its id, its group's, and its arguments joined by spaces."""

    pid: int
    group: int
    command: str


def own_processes() -> list[Process]:
    """This user's processes that have not ended; from /proc where there is one, else from ``ps``."""
    return list(_from_proc() if (PROC / "self/stat").exists() else _from_ps())


def mark_of(folder: Path) -> str:
    """The first arguments of a daemon of the cluster in a folder; its name follows."""
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return f"-Dnnjobs.cluster={digest} -Dnnjobs.daemon="


def daemons_of(folder: Path, processes: Iterable[Process] | None = None) -> dict[str, Process]:
    """The cluster's daemons that run, by name."""
    mark = f"/bin/java {mark_of(folder)}"
    found = {}
    for process in own_processes() if processes is None else processes:
        _, marked, rest = process.command.partition(mark)
        if marked:
            found[rest.split(" ", 1)[0]] = process
    return found


def containers_of(folder: Path) -> list[Process]:
    """What the cluster's NodeManager started: containers' scripts and JVMs, and all of their process groups."""
    resolved = folder.resolve()
    jvm = f" -Dyarn.app.container.log.dir={resolved}/nm/logs/"
    script = f"{resolved}/nm/local/"
    processes = own_processes()
    groups = {
        process.group
        for process in processes
        if jvm in process.command
        or (script in process.command and "default_container_executor" in process.command.split(script, 1)[1])
    }
    # On Linux each container is a session, so its group is never that of a person's shell; elsewhere it is the
    # NodeManager's own, which is no other's either: daemons start in sessions of their own.
    return [process for process in processes if process.group in groups and process.group != os.getpgid(0)]


def end(find: Callable[[], Iterable[Process]], grace: float) -> int:
    """Ends processes: SIGTERM, and SIGKILL after ``grace`` seconds. Looks again until none is found.

    Returns how many had to be killed.

    Raises:
        JobError: some are still there (stuck in the kernel).
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
                send(process.pid, signal.SIGKILL)
                killed.add(process.pid)
            elif process.pid not in asked:
                send(process.pid, signal.SIGTERM)
                asked.add(process.pid)
        time.sleep(POLL_SECONDS)
    return len(killed)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _from_proc() -> Iterable[Process]:
    user = os.getuid()
    for folder in PROC.glob("[0-9]*"):
        try:
            if folder.stat().st_uid != user:
                continue
            # An ended process that nobody has waited for has no arguments any more.
            if command := (folder / "cmdline").read_bytes():
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                text = command.replace(b"\0", b" ").decode(errors="replace")
                yield Process(int(folder.name), int(fields[2]), text)
        except OSError:
            continue  # it ended while we looked


def _from_ps() -> Iterable[Process]:
    command = ["ps", "-U", str(os.getuid()), "-ww", "-o", "pid=,pgid=,command="]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    for line in done.stdout.splitlines():
        pid, group, *text = line.split(None, 2)  # one that just begins has no command yet
        yield Process(int(pid), int(group), "".join(text) + " ")
