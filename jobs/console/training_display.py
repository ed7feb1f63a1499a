"""Shows a run to people on standard error: a live line on a terminal, plain lines elsewhere, one line if quiet.

A display is a listener of `nnlib.core.events` and a context manager. It remembers what a command needs after the run.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from jobs.console.output import console_on, is_terminal, printable
from jobs.console.worker_lines import group_lines
from nnlib.core.events import (
    Event,
    GroupProgress,
    Note,
    PhaseStarted,
    RoundDone,
    RunDone,
    RunStarted,
    TrialStopped,
    Waiting,
)
from nnlib.core.metrics import METRICS, is_share
from nnlib.core.run_result import RunResult
from nnlib.core.waiting import WaitReport, wait_line
from nnlib.evaluation.model_selection import choice_text, trial_text
from nnlib.run.names import run_names
from nnlib.storage import has_scheme

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

EVERY_SECONDS = 2.0
"""Rounds faster than this share a line where there is no terminal."""

SHOWN = ("balanced_accuracy", "f1_macro", "roc_auc", "average_precision", "log_loss", "rmse", "mae")
"""The metrics that stand below the main one."""

BAR = 8
"""Columns of the progress bar."""


def display(stream: TextIO, *, quiet: bool = False) -> Display:
    """Return the display for a stream: live on a terminal, lines elsewhere, almost nothing with ``quiet``."""
    if quiet:
        return Display(stream)
    return LiveDisplay(stream) if is_terminal(stream) else PlainDisplay(stream)


class Display:
    """The quiet display: only the final line, warnings and trials that diverged."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = cast(TextIO, _Lenient(stream))
        self.started: RunStarted | None = None
        self.finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, RunStarted):
            self.started = event
        self.finished |= isinstance(event, RunDone)
        self.show(event)

    def show(self, event: Event) -> None:
        """Write what the display shows of an event."""
        match event:
            case RunDone():
                self.line(final_line(event.result))
            case Note(level=level) if level != "info":
                self.line(note_line(event))
            case TrialStopped() if "diverged" in event.reason:
                self.line(stopped_line(event))

    def line(self, text: str) -> None:
        """Write text, without its control characters."""
        print(printable(text), file=self.stream, flush=True)


class PlainDisplay(Display):
    """Lines without control characters, for logs: every round, or one in `EVERY_SECONDS` when rounds are fast."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._shown_at = -math.inf

    def show(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.line("\n".join(header_lines(event)))
            case PhaseStarted():
                self.line(event.text)
            case RoundDone():
                last = event.epoch >= event.epochs
                if last or self._clock() - self._shown_at >= EVERY_SECONDS:
                    self._shown_at = self._clock()
                    self.line(round_line(event))
            case TrialStopped():
                self.line(stopped_line(event))
            case GroupProgress():
                self.line("\n".join(group_lines(event)))
            case Note():
                self.line(note_line(event))
            case Waiting(what=what) if what:
                self.line(waiting_line(event))
            case RunDone():
                self.line("\n".join(summary_lines(event.result, self.started)))


class LiveDisplay(Display):
    """A progress line with the time left, redrawn by rich, which honours NO_COLOR."""

    def __init__(self, stream: TextIO, console: Console | None = None) -> None:
        super().__init__(stream)
        self.console = console or console_on(self.stream)
        self._progress: Progress | None = None
        self._facts = "starting"

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def show(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.line("\n".join(header_lines(event)))
                self._start(event)
            case PhaseStarted():
                if self._progress is None or not self._progress.tasks:
                    self.line(event.text)
                else:
                    self._progress.update(self._progress.tasks[0].id, facts=event.text)
            case Waiting():
                self._show_wait(event)
            case RoundDone():
                self._advance(event)
            case TrialStopped():
                self.line(stopped_line(event), "yellow")
            case GroupProgress():
                self.line("\n".join(group_lines(event)), "dim")
            case Note():
                self.line(note_line(event), "" if event.level == "info" else "yellow")
            case RunDone():
                self._stop()
                self.console.rule(style="dim")
                first, *rest = summary_lines(event.result, self.started)
                self.line(first, "bold green")
                self.line("\n".join(rest))

    def line(self, text: str, style: str = "") -> None:
        self.console.print(printable(text), style=style or None, markup=False, highlight=False, soft_wrap=True)

    def _start(self, event: RunStarted) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.fields[position]}"),
            BarColumn(BAR),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left", style="dim"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            transient=False,
        )
        self._progress.start()
        # By epochs, for the number of rounds may not be known.
        position = f"round {event.first_round}{_of(event.rounds)}"
        self._progress.add_task(
            "", total=event.epochs, completed=event.first_epoch, position=position, facts=self._facts
        )

    def _advance(self, event: RoundDone) -> None:
        if self._progress is None or not self._progress.tasks:
            return
        # On a narrow terminal the least important facts are left out: a line that wraps cannot be redrawn.
        position = f"round {event.round}{_of(event.rounds)}"
        room = self.console.width - len(position) - BAR - len("0:00:00 left 0:00:00") - 4
        facts = round_facts(event)
        while len(facts) > 1 and len("  ".join(facts)) > room:
            facts.pop()
        task, self._facts = self._progress.tasks[0].id, "  ".join(facts)
        self._progress.update(task, completed=event.epoch, position=position, facts=self._facts)

    def _show_wait(self, event: Waiting) -> None:
        """Show a wait in the place of the round's numbers, or as a line where there is no progress line yet."""
        if self._progress is None or not self._progress.tasks:
            if event.what:
                self.line(waiting_line(event), "dim")
            return
        facts = self._facts if event.is_over else event.what
        self._progress.update(self._progress.tasks[0].id, facts=facts)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class _Lenient:
    """A stream whose reader may go away (a closed terminal, ``| head``) without that stopping the run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def header_lines(event: RunStarted) -> list[str]:
    """Say what is trained, by how many workers, and where the run is kept."""
    trials = "" if event.trials == 1 else f"{event.trials} trials, "
    rounds = "rounds as long as drift and cost suggest" if event.rounds is None else _count(event.rounds, "round")
    resumed = f", going on after round {event.first_round}" if event.first_round else ""
    return [
        f"{run_names([event.run_dir])[0]}: {trials}{_count(event.workers, 'worker')}, {event.runner}{resumed}",
        f"  {event.parameters:,} parameters, {event.train_rows:,} rows to train on, {event.test_rows:,} to test",
        f"  {event.epochs} epochs in {rounds}, into {shown_path(event.run_dir)}",
    ]


def round_facts(event: RoundDone) -> list[str]:
    """Return a round's numbers, the most important first. Scores are of the model before the round."""
    facts = []
    if event.train_loss is not None:
        facts.append(f"loss {event.train_loss:.4f}")
    if event.test_accuracy is not None:
        facts.append(f"accuracy before {percent(event.test_accuracy)}")
    elif event.test_metric is not None:
        facts.append(f"{event.test_metric[0]} before {event.test_metric[1]:.4g}")
    facts.append(f"epoch {event.epoch}/{event.epochs}")
    if event.drift is not None:
        facts.append(f"drift {event.drift:.3f}")
    return facts


def round_line(event: RoundDone) -> str:
    """Return a round's numbers as one line."""
    width = len(str(event.rounds or event.epochs))
    facts = [f"round {event.round:{width}}{_of(event.rounds)}", *round_facts(event), f"{event.seconds:.2f} s"]
    return "  ".join(facts)


def _of(rounds: int | None) -> str:
    return "" if rounds is None else f"/{rounds}"


def stopped_line(event: TrialStopped) -> str:
    """Say which trial stopped, when and why."""
    return f"split {event.split} (trial {event.trial}) stopped at round {event.round}: {event.reason}"


def note_line(event: Note) -> str:
    """Return a note, with its level unless that is ``info``."""
    return event.text if event.level == "info" else f"{event.level}: {event.text}"


def waiting_line(event: Waiting) -> str:
    """Return what a run waits for, and for how long it has."""
    return wait_line(WaitReport(event.what, event.seconds, event.is_over))


def final_line(result: RunResult) -> str:
    """Return the score and the address of the model in one line, for quiet runs."""
    return f"{_score_of(result) or 'done'}, model in {shown_path(result.run_dir)}"


def summary_lines(result: RunResult, started: RunStarted | None = None) -> list[str]:
    """Return the end of a run: its score, also by split if there are several, where the model is, what to do next."""
    lines = [_score_of(result) or "trained; no rows were left to test on"]
    if others := metrics_text(result.scores):
        lines.append(f"  {others}")
    trials = result.trials
    if len(trials) > 1:
        for trial in trials[:20]:
            lines.append(f"  {trial_text(trial.name)}  {score_text(trial.test_accuracy, trial.scores.get('r2'))}")
        lines += [f"  ... and {len(trials) - 20} more"] if len(trials) > 20 else []
    scores = [trial.test_accuracy for trial in trials if trial.test_accuracy is not None]
    if len(scores) > 1:
        lines.append(f"  standard deviation {100 * statistics.stdev(scores):.2f} points")
    if result.is_sweep:
        lines.append(choice_text(result.chosen))
    lines.append(f"trained in {_count(result.rounds, 'round')}, {result.seconds:.1f} s")
    run = shlex.quote(shown_path(result.run_dir))
    if result.diverged:
        return [
            *lines,
            f"{run} holds the last good model of each diverged trial, and the models of the others",
            "what to do next: go on from it, or from an earlier round (RUN@ROUND), with a smaller rate",
            f"  nnjobs train CONFIG --from {run} --set train.lr=SMALLER",
        ]
    grows = started is None or started.epochs_may_grow
    return [
        *lines,
        f"the model is in {run}",
        "what to do next:",
        f"  nnjobs predict {run} DATASET -o predictions.parquet",
        *([f"  nnjobs train --resume --run-dir {run} --set train.epochs=MORE"] if grows else []),
        f"  from Python: nnlib.load({shown_path(result.run_dir)!r}).predict(X)",
    ]


def _score_of(result: RunResult) -> str:
    mean = ", mean of all splits" if len(result.trials) > 1 else ""
    text = score_text(result.test_accuracy, result.test_r2)
    return text and text + mean


def score_text(accuracy: float | None, r2: float | None) -> str:
    """Return a score such as "test accuracy 93.41 %" or "test r2 0.5200"; "" where there is none."""
    if accuracy is not None:
        return f"test accuracy {percent(accuracy)}"
    return "" if r2 is None else f"test r2 {r2:.4f}"


def metrics_text(scores: Mapping[str, float | None]) -> str:
    """Return the metrics that stand below the main one, such as "macro F1 0.9312, ROC AUC 0.9873"; "" where there are
    none. The names are those of `nnlib.core.metrics`."""
    known = [(METRICS[name].title, name, scores[name]) for name in SHOWN if scores.get(name) is not None]
    return ", ".join(f"{title} {percent(value) if is_share(name) else f'{value:.4g}'}" for title, name, value in known)


def resume_line(run_dir: str) -> str:
    """Return the command that goes on with a run."""
    return f"nnjobs train --resume --run-dir {shlex.quote(shown_path(run_dir))}"


def shown_path(address: str) -> str:
    """Return a path below the current directory relative to it, other addresses as they are."""
    if has_scheme(address):
        return address
    with contextlib.suppress(ValueError, FileNotFoundError):  # the current folder may have been deleted
        return str(Path(address).relative_to(Path.cwd()))
    return os.fspath(address)


def percent(fraction: float | None) -> str:
    """Return a fraction in percent, two digits after the point; "-" for None."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
