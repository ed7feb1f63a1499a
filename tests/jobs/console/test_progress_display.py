"""Progress: nothing for quick work, then a bar with the time left or, where there is no terminal, lines."""

from __future__ import annotations

import io

import pytest

from jobs.console.output import console_on
from jobs.console.progress_display import ProgressDisplay, progress_line
from nnlib.core.progress import Progress, progress_shown_by, progressing


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """What rich takes for a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_come_after_a_while_and_not_too_often() -> None:
    stream, clock = io.StringIO(), Clock()
    with progress_shown_by(ProgressDisplay(stream, clock)), progressing("predicting", 1000) as advance:
        for second in range(25):
            clock.now = float(second)
            advance(second * 40)
    assert stream.getvalue().splitlines() == [
        "predicting: 400 of 1,000 rows, about 15 s left",
        "predicting: 800 of 1,000 rows, about 5 s left",
    ]


def test_a_terminal_shows_a_bar_and_clears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = Terminal(), Clock()
    with progress_shown_by(ProgressDisplay(stream, clock)):
        with progressing("checking", 100) as advance:
            advance(1)
            assert stream.getvalue() == ""
            clock.now = 3.0
            advance(50)
        assert "checking 50 rows" in stream.getvalue()
        shown = stream.getvalue()
        with progressing("quick", 100) as advance:
            advance(100)
        assert stream.getvalue() == shown


@pytest.mark.parametrize(
    ("progress", "seconds", "line"),
    [
        (Progress("importing", 5, None, "rows"), 9.0, "importing: 5 rows"),
        (Progress("writing", 0, 8, "sections"), 9.0, "writing: 0 of 8 sections"),
        (Progress("writing", 1, 8, "sections"), 600.0, "writing: 1 of 8 sections, about 70 min left"),
        (Progress("writing", 1, 80, "sections"), 600.0, "writing: 1 of 80 sections, about 13.2 h left"),
    ],
)
def test_a_line_has_the_time_left_where_the_total_is_known(progress: Progress, seconds: float, line: str) -> None:
    assert progress_line(progress, seconds) == line


def test_nobody_need_listen() -> None:
    with progressing("predicting", 10) as advance:
        advance(3)


@pytest.mark.parametrize("columns", ["0", "1", "19"])
def test_tables_are_shown_whatever_columns_says(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    stream = io.StringIO()
    console_on(stream).print("a line of text")
    assert stream.getvalue() == "a line of text\n"
