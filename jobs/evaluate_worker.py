"""One run of an evaluation, in a process of its own: events and the result as lines of JSON on standard output.

``python -m jobs.evaluate_worker CONFIG`` resumes the run that CONFIG names, or starts it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

from jobs import driver
from nnlib.config.load import load_config
from nnlib.errors import NnjobsError
from nnlib.events import Event, RoundDone, RunStarted


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
        say("result", driver.train(load_config(path), resume=True, listen=listen))
    except NnjobsError as error:
        say("error", error.to_record())
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
