"""Runs the client, the only JVM that a driver starts for a job: one ``hadoop jar`` that submits it and waits for it."""

from __future__ import annotations

import os
import re
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from jobs.runners.hadoop.kill import delete_staged, kill_application
from nnlib.core.errors import JobError
from nnlib.core.interrupts import uninterrupted

_APPLICATION = re.compile(r"(?:/\.staging/|Submitting tokens for job: )job_(\d+_\d+)|\bapplication_(\d+_\d+)\b")
"""The client prints the name of its job before it submits it, first in the path of the job's files. An interruption in
between must know what to kill and what to delete."""
_TRACKING = re.compile(r"url to track the job: (https?://[^/\s]+)/")
_FAILED = re.compile(r"Task Id *: *(attempt_\d+_\d+_[mr]_\d+_\d+), *Status *: *FAILED")
NO_TICKET = re.compile(r"Failed to find any Kerberos tgt|GSS initiate failed|Ticket expired|No valid credentials")
"""What the client says where Kerberos keeps it out."""
_HOPELESS = re.compile(r"Failed to find any Kerberos tgt|Ticket expired")
"""What of this does not pass by itself, though the client tries for minutes."""
_GROUP = re.compile(r"\t([^\t=]+)")
_COUNTER = re.compile(r"\t\t([^=]+)=(\d+)")
KEPT_LINES = 200
"""How many of the client's last lines are kept, for an error."""

STOP_SECONDS = 5.0


class State(Enum):
    """How far a submission is, as the driver knows it. A job that ended by itself stays `RUNNING`: the resource manager
    and the client's exit status say how it ended."""

    UNSUBMITTED = auto()
    """The cluster has not accepted the job yet, though the client may have named it."""
    RUNNING = auto()
    """The cluster has accepted the job."""
    ENDED = auto()
    """The driver has ended the job."""
    LEFT = auto()
    """The driver was interrupted and could not end the job, which may still run."""


@dataclass
class Submission:
    """A job that a client submits, as the client's messages describe it.

    ``web`` is the address of the resource manager's pages (or its proxy's); ``failed`` are the attempts that failed,
    oldest first; ``counters`` are Hadoop's, by group and name; ``lines`` are the client's last lines.
    """

    state: State = State.UNSUBMITTED
    application: str | None = None
    web: str | None = None
    failed: list[str] = field(default_factory=list)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    _group: str = ""

    def read_line(self, line: str) -> None:
        """Take the facts from one line of the client's standard error."""
        self.lines.append(line)
        if self.application is None and (match := _APPLICATION.search(line)):
            self.application = f"application_{match[1] or match[2]}"
        if "Submitted application" in line:
            self._accepted()
        if match := _TRACKING.search(line):
            self.web = match[1]
            self._accepted()
        if match := _FAILED.search(line):
            self.failed.append(match[1])
        if match := _COUNTER.fullmatch(line):
            self.counters.setdefault(self._group, {})[match[1]] = int(match[2])
        elif match := _GROUP.fullmatch(line):
            self._group = match[1]

    def _accepted(self) -> None:
        if self.state is State.UNSUBMITTED:
            self.state = State.RUNNING

    @property
    def map_attempts(self) -> int | None:
        """The number of attempts of map tasks that were started, if Hadoop counted them."""
        counts = (group.get("Launched map tasks") for group in self.counters.values())
        return next((count for count in counts if count is not None), None)

    @property
    def job(self) -> str | None:
        """The MapReduce name of the application."""
        return None if self.application is None else self.application.replace("application_", "job_", 1)


def submit(arguments: Sequence[str], environment: Mapping[str, str], yarn: str, submission: Submission) -> int:
    """Run the client to its end; return its exit status. What it writes meanwhile goes into ``submission``.

    Whatever ends the wait early (Ctrl-C, SIGTERM, an error) also kills the application. ``yarn`` is the program that
    does so where the resource manager does not accept this over HTTP. Raises `JobError` if the client cannot start.
    """
    try:
        # In a new session: a Ctrl-C at the terminal must reach this process, which then kills the job, and not the
        # client, which would end and leave the job running.
        process = subprocess.Popen(
            arguments,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise JobError(
            f"cannot start {arguments[0]}: {error.strerror}",
            hint="set HADOOP_HOME, or hadoop_bin in configs/mrjob/hadoop.conf",
        ) from error
    try:
        for line in _lines(process):
            submission.read_line(line)
            if submission.state is State.UNSUBMITTED and _HOPELESS.search(line):
                _stop(process)
        return process.wait()
    except BaseException:
        with uninterrupted():
            _stop(process)  # first, so that it cannot submit a job that is already killed
            for line in _rest(process):
                submission.read_line(line)
            name = submission.application
            if name is not None and not kill_application(name, submission.web, yarn, environment):
                if submission.state is State.UNSUBMITTED:
                    delete_staged(name)
                else:
                    submission.state = State.LEFT
        raise


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    assert process.stderr is not None
    for line in process.stderr:
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def _rest(process: subprocess.Popen[bytes]) -> list[str]:
    """The last lines of a client that has ended, without waiting for processes that it started and that still run."""
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    return (process.stderr.read() or b"").decode("utf-8", "replace").splitlines()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the client; one that is not done in time is killed."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
