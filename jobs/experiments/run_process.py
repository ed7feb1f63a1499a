"""Trains one run of an evaluation in a process: writes events and the result as lines of JSON to standard output.

``python -m jobs.experiments.run_process CONFIG`` resumes or starts the run that CONFIG, a file at any address, names.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TextIO

from jobs.driver import driver
from nnlib.config.render import from_resolved
from nnlib.core.errors import NnjobsError
from nnlib.core.events import Event, RoundDone, RunStarted
from nnlib.core.interrupts import WANTED, forget, interrupted_by_signals
from nnlib.core.standard_streams import standard_streams
from nnlib.storage import file_at


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the run of a configuration file; return the exit code."""
    (path,) = sys.argv[1:] if arguments is None else arguments
    out = sys.stdout  # the pipe itself: a run whose evaluation was killed ends when it cannot report
    with standard_streams(), interrupted_by_signals(interrupt_once):
        sys.stdout = sys.stderr  # output of libraries must not come between our lines
        return _train(path, out)


def _train(path: str, out: TextIO) -> int:
    def write(kind: str, facts: object) -> None:
        out.write(json.dumps({kind: facts}) + "\n")
        out.flush()

    def listen(event: Event) -> None:
        if isinstance(event, RunStarted | RoundDone):
            write(type(event).__name__, dataclasses.asdict(event))

    try:
        folder, name = file_at(path)
        config = from_resolved(folder.read(name).decode(), path)
        write("result", driver.train(config, resume=True, listen=listen).to_json())
    except NnjobsError as error:
        write("error", error.to_record())
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def interrupt_once(number: int, frame: FrameType | None) -> None:
    """End the run as Ctrl-C does, once.

    Ctrl-C reaches all processes of a terminal, and then the evaluation also ends this one: a second signal must not
    interrupt the removal of its job from the cluster.
    """
    for each in WANTED:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, forget)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
