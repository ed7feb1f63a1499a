"""Events of the driver while it works: plain values for a terminal, a log or a test.

A listener is any function of one event (`Listener`); it must not raise and cannot change the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nnlib.core.run_result import RunResult


@dataclass(frozen=True)
class RunStarted:
    """The driver is about to train. ``first_round`` and ``first_epoch`` are above 0 when a run is resumed; ``rounds``
    is None where their lengths are chosen on the way."""

    name: str
    run_dir: str
    runner: str
    workers: int
    trials: int
    first_round: int
    first_epoch: int
    rounds: int | None
    epochs: int
    parameters: int
    train_rows: int
    test_rows: int
    epochs_may_grow: bool = True


@dataclass(frozen=True)
class PhaseStarted:
    """A step that is not a round begins: "split" (finding thresholds), "scale" (fitting), "final" (scoring)."""

    phase: str
    text: str


@dataclass(frozen=True)
class RoundDone:
    """A round is committed. Means are over the unfinished trials; None where nothing was scored.

    ``test_accuracy``, ``test_loss`` and ``validation_loss`` belong to the model the round started from (the incoming
    model is scored in the same job), ``train_loss`` to the round's own training. ``test_metric`` is (name, value) for
    regression. ``drift`` is the largest distance of a worker's weights from the average, relative to the average's
    norm. ``rounds`` is None where their lengths are chosen on the way.
    """

    round: int
    rounds: int | None
    epoch: int
    epochs: int
    active_trials: int
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    test_metric: tuple[str, float] | None
    validation_loss: float | None
    drift: float | None
    seconds: float


@dataclass(frozen=True)
class TrialStopped:
    """A trial is not trained any more, because it stopped early or diverged (``reason``); the others go on."""

    trial: int
    split: int
    round: int
    reason: str


@dataclass(frozen=True)
class Note:
    """A line for people: a resume, a retry, a warning (``level``)."""

    text: str
    level: str = "info"


@dataclass(frozen=True)
class WorkerProgress:
    """One worker in a round: its training loss, its speed, the seconds of the round that it waited for others, and the
    node that it ran on ("": not known)."""

    worker: int
    loss: float | None
    examples_per_second: float | None
    wait: float
    host: str = ""


@dataclass(frozen=True)
class GroupProgress:
    """The workers of a collective job in one of its rounds, sent now and then; the round took ``seconds``."""

    round: int
    seconds: float
    workers: tuple[WorkerProgress, ...]


@dataclass(frozen=True)
class Waiting:
    """The driver has waited for something for ``seconds``, and still does unless ``is_over``. ``what`` is "" where only
    the end of a wait is reported, and needs no line."""

    what: str
    seconds: float
    is_over: bool = False


@dataclass(frozen=True)
class RunDone:
    """The run is finished and its final models are scored."""

    result: RunResult


Event = RunStarted | PhaseStarted | RoundDone | TrialStopped | GroupProgress | Note | Waiting | RunDone
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing with an event: the listener of runs that nobody watches."""
