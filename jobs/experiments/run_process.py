"""One run of an evaluation, in a process of its own: events and the result as lines of JSON on standard output.

``python -m jobs.experiments.run_process CONFIG`` resumes the run that CONFIG, a file at any address, names, or starts
it."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Sequence

from jobs.driver import driver
from jobs.runners.interrupts import WANTED, forget
from nnlib.config.render import from_resolved
from nnlib.core.errors import NnjobsError
from nnlib.core.events import Event, RoundDone, RunStarted
from nnlib.storage import file_at


def main(arguments: Sequence[str] | None = None) -> int:
    (path,) = sys.argv[1:] if arguments is None else arguments
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints must not get between our lines

    def say(kind: str, facts: object) -> None:
        out.write(json.dumps({kind: facts}) + "\n")
        out.flush()

    def listen(event: Event) -> None:
        if isinstance(event, RunStarted | RoundDone):
            say(type(event).__name__, dataclasses.asdict(event))

    try:
        place, name = file_at(path)
        config = from_resolved(place.read(name).decode(), path)
        say("result", driver.train(config, resume=True, listen=listen).to_json())
    except NnjobsError as error:
        say("error", error.to_record())
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def interrupt(number: int, frame: object) -> None:
    """End the run as Ctrl-C does, once: a terminal's Ctrl-C comes to all processes, and then the evaluation ends this
    one, which must not keep it from taking its job off the cluster."""
    for each in WANTED:
        signal.signal(each, forget)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for wanted in WANTED:
        signal.signal(wanted, interrupt)
    sys.exit(main())
