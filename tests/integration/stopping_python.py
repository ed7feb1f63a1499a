"""A Python for nodes whose tasks are to be harmed: one that was asked for stops itself (SIGSTOP) in the midst of its
work, so that a test can kill it, or something else, at a known moment.

    python stopping_python.py FOLDER -m MODULE ARGUMENTS...

A file ``FOLDER/wanted/train-1-m-0-0`` asks for an attempt: phase, round, map or reduce task, its number, its attempt.
It stops when it has trained on two batches, or as many as the file says, or on two of the round that it names
(``round 6``, counted from 0: all workers of a group can stop in one; a reduce task: when it has read its first
partial; of several workers that share a task: the first to come so far), and has left its process's number and host in
``FOLDER/stopped``, under the same name.
"""

from __future__ import annotations

import os
import platform
import re
import runpy
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

BATCHES = 2


def stop(folder: Path, name: str) -> None:
    """Stop here, if it is wanted and has not been done."""
    mark = folder / "stopped" / name
    if not (folder / "wanted" / name).exists():
        return
    scratch = mark.with_name(f".{name}-{platform.node()}-{os.getpid()}")
    scratch.write_text(f"{os.getpid()} {platform.node()}", encoding="ascii")
    try:
        os.link(scratch, mark)  # one of the processes of a task that workers share
    except FileExistsError:
        return
    finally:
        scratch.unlink()
    os.kill(os.getpid(), signal.SIGSTOP)


def main() -> None:
    folder, _, module, *arguments = sys.argv[1:]
    found = re.fullmatch(r"attempt_\d+_\d+_([mr])_(\d+)_(\d+)", os.environ["mapreduce_task_attempt_id"])  # noqa: SIM112  (Hadoop's)
    assert found is not None
    options = dict(pairwise(arguments))
    name = f"{options['--phase']}-{options['--round']}-{found[1]}-{int(found[2])}-{found[3]}"
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the nnjobs that is tested, not one that is installed
    # Before anything else has taken these functions from their modules.
    from jobs.mapreduce import wire
    from nnlib.core import liveness

    trained, wanted = 0, Path(folder, "wanted", name)
    text = wanted.read_text() if wanted.exists() else ""
    first_round = int(text.removeprefix("round ")) if text.startswith("round ") else 0
    until = BATCHES if first_round else int(text or BATCHES)
    beat, decode_partial = liveness.heartbeat, wire.decode_partial

    def beat_and_stop() -> None:
        nonlocal trained
        beat()
        activity = liveness.HEARTBEAT.activity
        if found[1] == "m" and activity.get("phase") == "train" and activity["round"] >= first_round:
            trained += 1
            if trained == until:
                stop(Path(folder), name)

    def decode_and_stop(*given: Any, **named: Any) -> Any:
        partial = decode_partial(*given, **named)
        stop(Path(folder), name)
        return partial

    liveness.heartbeat = beat_and_stop
    wire.decode_partial = decode_and_stop
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
