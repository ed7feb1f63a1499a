"""What a command needs on this machine to run jobs: their small files, and processes for their tasks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from jobs.runners.local.attempt import StartProcess
from jobs.runners.local.fork_server import TaskServer
from jobs.runners.task_environment import task_environment


def process_starter(blas_threads: int, stack: ExitStack, modules: Sequence[str]) -> StartProcess:
    """How tasks' processes are started, until ``stack`` ends; ``modules`` are what they import."""
    if sys.platform != "linux":  # elsewhere a fork of a loaded BLAS is not safe
        return subprocess.Popen
    return stack.enter_context(TaskServer(task_environment(blas_threads), modules)).start
