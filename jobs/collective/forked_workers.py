"""One task for several workers: what takes long to start, a container with its JVM and Python's modules, starts once,
and every worker is a process forked from there."""

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

Work = Callable[[bytes, BinaryIO], None]
"""Does what a line of a task's input asks for, and writes what it gives."""


class WorkerEndedError(Exception):
    """The process of a line, by its ``index``, ended with ``code`` (negative: by that signal)."""

    def __init__(self, index: int, code: int) -> None:
        super().__init__(f"ended with code {code}" if code >= 0 else f"ended by {signal_name(-code)}")
        self.index, self.code = index, code


def run_shared(lines: Sequence[bytes], work: Work, output: BinaryIO) -> None:
    """Work on every line in a process of its own, all at once; what they give is written in the order of the lines,
    when all have ended well.

    Raises `WorkerEndedError` for the first that does not; the others are ended then, and nothing is written. They also
    end with this process. It must have no other threads of Python's, for a
    fork copies their locks as they are, and no other children.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    children: dict[int, int] = {}
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile(dir=".")) for _ in lines]
        try:
            for index, line in enumerate(lines):
                process = os.fork()
                if process == 0:
                    die_with(parent)
                    end_with(partial(_give, work, line, outputs[index]))
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
        for own in outputs:
            own.seek(0)
            shutil.copyfileobj(own, output)


def _give(work: Work, line: bytes, output: BinaryIO) -> None:
    work(line, output)
    output.flush()
