"""Runs a task's work in forked children: they end when their parent does, and never return to its code."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

UNFLUSHED = 120
"""Python's exit code of a process whose last output could not be written."""
DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of linux/prctl.h: the signal to a process whose parent ends."""


def die_with(parent: int) -> None:
    """In a child: make this process end when ``parent`` ends, however that happens."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def end_with(work: Callable[[], None]) -> NoReturn:
    """In a child: do the work and end, with the exit code that a program doing it would have."""
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()  # on a full disk only this fails
            sys.stderr.flush()
        except Exception:
            code = code or UNFLUSHED
        os._exit(code)
