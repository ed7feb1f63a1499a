"""What a command needs on this machine to run jobs: their small files, and processes for their tasks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from jobs.attempts import StartProcess
from jobs.runners import task_environment
from jobs.task_server import TaskServer
from nnlib.errors import StorageError


def write_file(path: Path, data: bytes) -> None:
    """Write a file of a scratch folder."""
    try:
        path.write_bytes(data)
    except OSError as error:
        hint = "set TMPDIR to a folder with space"
        raise StorageError(f"cannot write: {error.strerror or error}", hint=hint, file=str(path)) from error


def process_starter(blas_threads: int, stack: ExitStack, modules: Sequence[str]) -> StartProcess:
    """How tasks' processes are started, until ``stack`` ends; ``modules`` are what they import."""
    if sys.platform != "linux":  # elsewhere a fork of a loaded BLAS is not safe
        return subprocess.Popen
    return stack.enter_context(TaskServer(task_environment(blas_threads), modules)).start
