"""One task that runs several workers: what takes long to start (the container, its JVM, Python and its modules) starts
once, and every worker is a process forked from there."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO

from jobs.runners.forked_child import die_with, end_with
from jobs.runners.local.attempt import signal_name
from nnlib.core.forks import fork

Work = Callable[[bytes, BinaryIO], None]
"""Processes one line of a task's input and writes its output to the file."""


class WorkerEndedError(Exception):
    """Raised when the process of a line has failed: the ``index`` of the line, and the exit ``code`` (negative: the
    signal that ended it)."""

    def __init__(self, index: int, code: int) -> None:
        super().__init__(f"ended with code {code}" if code >= 0 else f"ended by {signal_name(-code)}")
        self.index, self.code = index, code


def fork_workers(lines: Sequence[bytes], work: Work, output: BinaryIO) -> None:
    """Process every line in a forked process, all at once; when all have succeeded, write their outputs to ``output``
    in the order of the lines.

    Raises `WorkerEndedError` for the first process that fails; the others are killed then, and nothing is written. They
    also end with this process. It must have no other Python threads, because a fork copies their locks as they are, and
    no other children.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    children: dict[int, int] = {}
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile(dir=".")) for _ in lines]
        try:
            for index, line in enumerate(lines):
                process = fork()
                if process == 0:
                    die_with(parent)
                    end_with(partial(_run, work, line, outputs[index]))
                children[process] = index
            while children:
                process, status = os.wait()
                index = children.pop(process)
                if code := os.waitstatus_to_exitcode(status):
                    raise WorkerEndedError(index, code)
        finally:
            for process in children:
                os.kill(process, signal.SIGKILL)
            for process in children:
                os.waitpid(process, 0)
        for each in outputs:
            each.seek(0)
            shutil.copyfileobj(each, output)


def _run(work: Work, line: bytes, output: BinaryIO) -> None:
    work(line, output)
    output.flush()
