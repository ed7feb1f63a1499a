"""The environment variables of a task's process."""

from __future__ import annotations

import os
from pathlib import Path

import jobs
from nnlib.core.machine import BLAS_VARIABLES


def task_environment(blas_threads: int) -> dict[str, str]:
    """Return the variables: BLAS threads are set before numpy is loaded, and nnjobs must be importable."""
    root = str(Path(str(jobs.__file__)).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**dict.fromkeys(BLAS_VARIABLES, str(blas_threads)), "PYTHONPATH": path}
