"""Faults injected into a local run on purpose, to show that they do not change its result.

``--chaos seed=1,kill=0.2,twin=0.2,delay=0.1,reorder=1,truncate=0.05`` gives every fault a probability. What happens to
an attempt of a task is a function of the seed, the job, the task and the attempt alone, so a schedule can be repeated.
"""

from __future__ import annotations

import difflib
import math
import random
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nnlib.config.runners import runner_named
from nnlib.config.schema import Config
from nnlib.core.errors import UsageError

LONGEST_DELAY = 0.5  # seconds
EXAMPLE = "for example --chaos seed=1,kill=0.2,twin=0.2,delay=0.1,reorder=1,truncate=0.05"


@dataclass(frozen=True)
class Faults:
    """The faults of one attempt.

    ``delay`` is in seconds; ``moment`` in [0, 1) is when a kill happens, as a part of the task's usual duration;
    ``cut`` is the part of the output that remains; ``order`` seeds the new order of its lines.
    """

    delay: float = 0.0
    kill: bool = False
    hang: bool = False
    moment: float = 0.0
    cut: float | None = None
    cut_at_line: bool = False
    order: int | None = None

    @property
    def fatal(self) -> bool:
        """Whether the faults make the attempt fail."""
        return self.kill or self.hang or self.cut is not None


@dataclass(frozen=True)
class Chaos:
    """A schedule of faults: probabilities for an attempt, and the seed they are drawn from.

    kill: SIGKILL at some moment of the work; hang: SIGSTOP, until the time limit ends it; truncate: the output loses
    its end; delay: a late start (up to `LONGEST_DELAY` seconds); reorder: the lines of the output, and the outputs of
    the reducers, come in another order; twin: the task runs twice, as a speculative attempt would. The last attempt of
    a task is never killed, hung or cut, unless that has probability 1. ``worker`` limits the faults to one worker.
    """

    seed: int = 0
    kill: float = 0.0
    hang: float = 0.0
    twin: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    truncate: float = 0.0
    worker: int | None = None

    @classmethod
    def parse(cls, text: str) -> Chaos:
        """Read ``key=value,...``. Raises `UsageError` for unknown keys and values out of range."""
        values: dict[str, Any] = {}
        for part in text.split(","):
            key, separator, value = (piece.strip() for piece in part.partition("="))
            if not separator:
                raise UsageError(f"--chaos: {part.strip()!r} is not key=value", hint=EXAMPLE)
            if key not in KEYS:
                near = difflib.get_close_matches(key, KEYS, n=1)
                meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(KEYS)}"
                raise UsageError(f"--chaos: there is no {key!r}; {meant}", hint=EXAMPLE)
            if key in values:
                raise UsageError(f"--chaos: {key} appears twice")
            values[key] = _whole_number(key, value) if key in ("seed", "worker") else _probability(key, value)
        return cls(**values)

    def check(self, config: Config) -> None:
        """Raise `UsageError` if a run with this configuration cannot have these faults."""
        if not runner_named(config.runtime.runner).takes_chaos:
            raise UsageError(
                f"--chaos needs tasks that are processes; the {config.runtime.runner} runner has none to kill",
                hint="add -r local",
            )
        if config.sync.mode == "collective" and (self.twin or self.hang):
            raise UsageError(
                "--chaos: in collective mode a task cannot run twice, because each worker joins the group once, and "
                "one that hangs is lost before it has joined",
                hint="use kill, delay, reorder and truncate",
            )
        if self.hang and config.runtime.task_timeout_seconds is None:
            raise UsageError(
                "--chaos: a task that hangs would hang forever",
                hint="set runtime.task_timeout_seconds, for example to 10",
            )
        if self.worker is not None and self.worker >= config.workers:
            raise UsageError(f"--chaos: there is no worker {self.worker}, only 0 to {config.workers - 1}")

    def twin_of(self, job: str, task: str, attempt: int) -> str | None:
        """Return which of two equal runs is used ("first", "second"); None if this attempt is not run twice."""
        draw = self._draw(job, task, f"{attempt}/twin")
        hit, second = draw.random() < self.twin, draw.random() < 0.5
        if not hit or not self._reaches(task):
            return None
        return "second" if second else "first"

    def faults(self, job: str, task: str, attempt: int, twin: int, *, last: bool) -> Faults:
        """Return the faults of an attempt (of its run ``twin``: 0 or 1); ``last``: there is no further attempt."""
        if not self._reaches(task):
            return Faults()
        draw = self._draw(job, task, f"{attempt}/{twin}")
        # Everything is drawn, always and in this order, so that one probability does not shift the other faults.
        kill, hang, cut, delay, order = (draw.random() for _ in range(5))
        moment, length, fraction, at_line = (draw.random() for _ in range(4))

        def hits(drawn: float, probability: float) -> bool:
            return drawn < probability and not (last and probability < 1.0)

        return Faults(
            delay=length * LONGEST_DELAY if delay < self.delay else 0.0,
            kill=hits(kill, self.kill),
            hang=hits(hang, self.hang),
            moment=moment,
            cut=fraction if hits(cut, self.truncate) else None,
            cut_at_line=at_line < 0.5,
            order=draw.getrandbits(32) if order < self.reorder else None,
        )

    def order_of_outputs(self, job: str, count: int) -> list[int]:
        """Return the order in which the outputs of a job's ``count`` tasks are read."""
        draw, order = self._draw(job, "outputs", ""), list(range(count))
        if draw.random() < self.reorder and self.worker is None:
            draw.shuffle(order)
        return order

    def _reaches(self, task: str) -> bool:
        return self.worker is None or task == f"worker {self.worker}"

    def _draw(self, job: str, task: str, which: str) -> random.Random:
        # Not from `nnlib.core.seeds`: these numbers must never be part of a result.
        return random.Random(f"{self.seed}/{job}/{task}/{which}")


KEYS = tuple(field.name for field in fields(Chaos))


def cut(path: Path, fraction: float, *, at_line: bool) -> None:
    """Cut a file to ``fraction`` (below 1) of its bytes; exactly after a line if ``at_line``."""
    data = path.read_bytes()
    size = int(fraction * len(data))
    path.write_bytes(data[: data.rfind(b"\n", 0, size) + 1 if at_line else size])


def shuffle_lines(path: Path, order: int) -> None:
    """Put the lines of a file into the order that ``order`` seeds."""
    with path.open("rb") as file:
        lines = list(file)
    random.Random(order).shuffle(lines)
    path.write_bytes(b"".join(lines))


def _probability(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"--chaos: {key} is {text!r}, but a probability lies between 0 and 1", hint=EXAMPLE)
    return value


def _whole_number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise UsageError(f"--chaos: {key} is {text!r}, but must be a whole number, 0 or more", hint=EXAMPLE)
    return int(text)
