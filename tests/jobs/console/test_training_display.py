"""What a run looks like: on a terminal, in a log, quietly."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from jobs.console.output import MAX_LINES, printable, show_error
from jobs.console.training_display import Display, LiveDisplay, PlainDisplay, display, summary_lines
from nnlib.core.errors import ConfigError, DataError
from nnlib.core.events import Event, Note, PhaseStarted, RoundDone, RunDone, RunStarted, TrialStopped
from nnlib.core.run_result import RunResult, TrialName, TrialResult


def trial(split: int, accuracy: float | None, r2: float | None = None) -> TrialResult:
    scores = {"accuracy": accuracy, "loss": 0.5} if r2 is None else {"r2": r2, "mse": 0.5, "mae": 0.5, "loss": 0.5}
    return TrialResult(TrialName(split), scores, "active", 20)


RESULT = RunResult({"accuracy": 0.9341}, (trial(0, 0.93), trial(1, 0.9382)), "5ha", 20, 1.93, "/elsewhere/digits 1")


def started(rounds: int = 20, first: int = 0) -> RunStarted:
    where = ("digits", "/elsewhere/digits-1", "inline", 4, 2)
    return RunStarted(*where, first, 5 * first, rounds, 5 * rounds, 41110, 3500, 1500)


def done(number: int, rounds: int = 20) -> RoundDone:
    return RoundDone(number, rounds, 5 * number, 5 * rounds, 2, 0.1234, 0.2, 0.9, None, None, 0.034, 0.05)


def run(rounds: int = 20) -> list[Event]:
    return [
        PhaseStarted("split", "finding the splits"),
        started(rounds),
        *(done(number, rounds) for number in range(1, rounds + 1)),
        TrialStopped(1, 1, 7, "diverged"),
        Note("task 3 was tried again", "warning"),
        PhaseStarted("final", "scoring the final model"),
        RunDone(RESULT),
    ]


def plain_text(seconds_a_round: float) -> str:
    stream = io.StringIO()
    now = iter(range(10**6))
    with PlainDisplay(stream, clock=lambda: next(now) * seconds_a_round) as screen:
        for event in run():
            screen(event)
    return stream.getvalue()


def test_plain_lines_one_a_round() -> None:
    lines = plain_text(seconds_a_round=60.0).splitlines()
    rounds = [line for line in lines if line.startswith("round")]
    assert len(rounds) == 20
    assert rounds[6] == "round  7/20  loss 0.1234  accuracy before 90.00 %  epoch 35/100  drift 0.034  0.05 s"
    assert lines[1] == "digits-1: 2 trials, 4 workers, inline"
    assert "warning: task 3 was tried again" in lines and "split 1 (trial 1) stopped at round 7: diverged" in lines
    assert all(line.isprintable() for line in lines)


def test_a_run_whose_end_is_fixed_is_not_said_to_go_on() -> None:
    fixed = replace(started(), epochs_may_grow=False)
    assert "train.epochs=MORE" in "\n".join(summary_lines(RESULT, started()))
    assert "train.epochs=MORE" not in "\n".join(summary_lines(RESULT, fixed))


def test_fast_rounds_share_lines_but_first_and_last_are_shown() -> None:
    rounds = [line for line in plain_text(seconds_a_round=0.0).splitlines() if line.startswith("round")]
    assert [line.split()[1] for line in rounds] == ["1/20", "20/20"]


def test_summary_says_score_place_and_what_next() -> None:
    text = "\n".join(summary_lines(RESULT))
    assert "test accuracy 93.41 %, mean of all splits" in text
    assert "split 1  test accuracy 93.82 %" in text and "standard deviation 0.58 points" in text
    assert "nnjobs predict '/elsewhere/digits 1' DATASET -o" in text
    assert "nnjobs train --resume --run-dir '/elsewhere/digits 1'" in text
    assert "nnlib.load('/elsewhere/digits 1').predict(X)" in text


def test_summary_of_a_regression_and_of_nothing_scored() -> None:
    trials = (trial(0, None, 0.0), trial(1, None, 0.5))
    regression = replace(RESULT, scores={"r2": 0.25}, trials=trials, is_regression=True)
    lines = summary_lines(regression)
    assert lines[:3] == ["test r2 0.2500, mean of all splits", "  split 0  test r2 0.0000", "  split 1  test r2 0.5000"]
    assert "no rows were left" in summary_lines(replace(RESULT, scores={}, trials=()))[0]


def test_quiet_is_the_final_line_and_warnings() -> None:
    stream = io.StringIO()
    screen = display(stream, quiet=True)
    for event in run():
        screen(event)
    assert stream.getvalue().splitlines() == [
        "split 1 (trial 1) stopped at round 7: diverged",
        "warning: task 3 was tried again",
        "test accuracy 93.41 %, mean of all splits, model in /elsewhere/digits 1",
    ]
    assert screen.finished and screen.started is not None


@pytest.mark.parametrize("width", [60, 80, 120])
def test_live_display_fits_the_terminal_and_ends_with_the_summary(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    with LiveDisplay(stream, console) as screen:
        for event in run():
            if event != PhaseStarted("final", "scoring the final model"):
                screen(event)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    last = [line for line in re.split(r"[\r\n]", text) if line.startswith("round 20/20")][-1]
    assert "loss 0.1234" in last and len(last) <= width
    assert ("accuracy before 90.00 %" in last) == (width >= 80) and ("drift 0.034" in last) == (width == 120)
    assert text.index("test accuracy 93.41 %") < text.index("what to do next")


def test_live_display_is_left_in_order_when_a_run_breaks() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), LiveDisplay(stream, Console(file=stream, force_terminal=True)) as screen:
        screen(started())
        raise KeyboardInterrupt
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h")  # the cursor is back


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    with LiveDisplay(stream, Console(file=stream, force_terminal=True, width=100)) as screen:
        for event in run():
            screen(event)
    assert "\x1b[3" not in stream.getvalue().replace("\x1b[?25", "") and "\x1b[1;32m" not in stream.getvalue()


def test_a_terminal_that_went_away_does_not_stop_the_run() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    for screen in (Display(Gone()), PlainDisplay(Gone()), LiveDisplay(Gone())):
        for event in run():
            screen(event)


def test_errors_are_one_screen_without_control_characters() -> None:
    stream = io.StringIO()
    show_error(DataError("label \x1b[31mred", file="a\x07.csv", row=3, hint="remove it"), stream)
    assert stream.getvalue() == "nnjobs: file a?.csv, row 3: label ?[31mred\n  what to do: remove it\n"
    stream = io.StringIO()
    show_error(ConfigError("\n".join(f"problem {number}" for number in range(200))), stream)
    lines = stream.getvalue().splitlines()
    assert len(lines) == MAX_LINES and lines[-1] == "  ... and 171 more lines"
    assert printable("ä\u202eb\t") == "ä?b?"
