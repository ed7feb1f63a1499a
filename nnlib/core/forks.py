"""What must not have happened in a process before it forks.

A forked child has its parent's memory, but none of its threads: libraries that have started some (a GPU's driver, a
pool of several threads that has computed) hang or fail in the child.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from nnlib.core.errors import JobError

_checks: list[Callable[[], Sequence[str]]] = []


def check_before_fork(list_used: Callable[[], Sequence[str]]) -> None:
    """Register a check of every fork: ``list_used`` lists what is in use here that a child could not use."""
    _checks.append(list_used)


def fork() -> int:
    """Fork this process as `os.fork` does. Raises `JobError` where something is in use that a child could not use."""
    used = [what for check in _checks for what in check()]
    if used:
        raise JobError(
            f"this process has used a {', a '.join(used)}, so it must not fork: its children could not use it",
            hint="what is imported (a file of model.files, say) must leave devices alone",
        )
    return os.fork()
