"""A third runner: all tasks in this process, in a random order, some late, their lines in a random order.

One class here and one line in the table of runners are all that it takes. As a program it is ``nnjobs`` with that line:

    python tests/helpers/shuffling_runner.py train CONFIG -r shuffling
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from jobs.runners.inline import output_of
from jobs.runners.lines import Line, reducer_of
from jobs.runners.request import JobRequest
from jobs.runners.session import MachineSession, SessionOptions
from nnlib.config.runners import RUNNERS, Runner

LONGEST_DELAY_SECONDS = 0.01


class ShufflingSession(MachineSession):
    """Runs tasks in a random order."""

    slots = 1

    def __init__(self, options: SessionOptions) -> None:
        super().__init__()
        self._random = random.Random(5)

    def run(self, job: JobRequest) -> Iterator[Line]:
        task = job.job(job.local_arguments())
        plan = [line.encode() for line in job.lines]
        # The workers of a collective job are one task, whose lines stay in the order of the workers.
        tasks = [plan] if job.is_collective else [[line] for line in plan]
        mapped = self._run_all(lambda lines: output_of(task, task.run_mapper, lines), tasks)
        if job.reducers:
            groups: dict[int, list[bytes]] = {}
            for line in sorted(mapped):
                groups.setdefault(reducer_of(line, job.reducers), []).append(line)
            mapped = self._run_all(lambda lines: output_of(task, task.run_reducer, lines), list(groups.values()))
        for line in mapped:
            key, _, value = line.rstrip(b"\n").partition(b"\t")
            yield key, value

    def _run_all(self, run: Callable[[list[bytes]], list[bytes]], tasks: Sequence[list[bytes]]) -> list[bytes]:
        """Run tasks in a random order; return their lines, which are shuffled, too."""
        lines: list[bytes] = []
        for task in self._random.sample(tasks, len(tasks)):
            if self._random.random() < 0.3:
                time.sleep(self._random.random() * LONGEST_DELAY_SECONDS)
            lines += run(task)
        return self._random.sample(lines, len(lines))


SHUFFLING = Runner(f"{__spec__.name if __spec__ else '__main__'}:ShufflingSession", in_one_process=True)
"""The line of the table."""

if __name__ == "__main__":
    RUNNERS["shuffling"] = SHUFFLING
    from jobs.__main__ import main

    sys.exit(main(sys.argv[1:]))
