"""Shows how far long work is: a bar with the time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from jobs.console.output import is_terminal
from nnlib.core.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

BAR_SECONDS = 2.0
"""Work shorter than this shows no bar."""
LINE_SECONDS = 10.0
"""Time to the first line where there is no terminal, and between lines."""


class ProgressDisplay:
    """Shows the progress of one work after another on a stream."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._is_terminal = is_terminal(stream)
        self._began: float | None = None
        self._shown = -math.inf
        self._bar: Bar | None = None

    def __call__(self, progress: Progress | None) -> None:
        """Show how far the work is; None: it has ended."""
        if progress is None:
            self.close()
            return
        now = self._clock()
        if self._began is None:
            self._began = now
        if self._is_terminal:
            if now - self._began >= BAR_SECONDS:
                self._draw(progress)
        elif now - max(self._began, self._shown) >= LINE_SECONDS:
            self._shown = now
            print(progress_line(progress, now - self._began), file=self._stream, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
        self._began, self._shown, self._bar = None, -math.inf, None

    def _draw(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = self._new_bar()
            self._bar.add_task("", total=None)
            self._bar.start()
        text = f"{progress.what} {progress.done:,} {progress.unit}"
        self._bar.update(self._bar.tasks[0].id, description=text, completed=progress.done, total=progress.total)

    def _new_bar(self) -> Bar:
        # rich is imported only where it draws: importing it takes a twentieth of a second.
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from jobs.console.output import console_on

        columns: list[Any] = [TextColumn("{task.description}", markup=False), BarColumn(24), TimeElapsedColumn()]
        columns += [TextColumn("left", style="dim"), TimeRemainingColumn()]
        # Standard output stays: a result must not get into the bar's stream.
        return Bar(*columns, console=console_on(self._stream), transient=True, redirect_stdout=False)


def progress_line(progress: Progress, seconds: float) -> str:
    """Return the line that says how far work is; it has run for ``seconds``."""
    line = f"{progress.what}: {progress.done:,}"
    if progress.total is None:
        return f"{line} {progress.unit}"
    line += f" of {progress.total:,} {progress.unit}"
    left = seconds * (progress.total - progress.done) / progress.done if progress.done else None
    return line if left is None else f"{line}, about {duration_text(left)} left"


def duration_text(seconds: float) -> str:
    """Return a time for people: "42 s", "7 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
