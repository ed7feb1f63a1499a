"""The end of a command: errors for people on standard error, results for programs on standard output."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING, Any, TextIO

from nnlib.core.errors import NnjobsError

if TYPE_CHECKING:
    from rich.console import Console

FAILURES = {
    2: "wrong usage or configuration",
    3: "bad data",
    4: "a job, the cluster or the storage failed",
    5: "training diverged",
}
"""Exit code -> the kind of failure, as the title of an error."""

MIN_COLUMNS = 20
MAX_LINES = 30  # an error is one screen


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream can show a live display. False for a missing or closed one, and for one that cannot say."""
    try:
        return stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown")
    except (AttributeError, ValueError):
        return False


def console_on(stream: TextIO, **options: Any) -> Console:
    """Return rich's console for a stream. Where ``COLUMNS`` is too small for any text, it is 80 columns wide."""
    # rich is imported only where it draws: importing it takes a twentieth of a second.
    from rich.console import Console

    console = Console(file=stream, **options)
    return console if console.width >= MIN_COLUMNS else Console(file=stream, width=80, **options)


def printable(text: str) -> str:
    """Replace the control characters of a text, which a file name or a column could carry into a terminal, by ``?``."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def show_error(error: NnjobsError, stream: TextIO) -> None:
    """Write an error, at most a screen of it: in a frame on a terminal, as plain lines elsewhere."""
    lines = printable(str(error)).splitlines()
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"  ... and {len(lines) - MAX_LINES + 1} more lines"]
    text = "\n".join(lines)
    if not is_terminal(stream):
        print(f"nnjobs: {text}", file=stream)
        return
    from rich.panel import Panel
    from rich.text import Text

    title = FAILURES.get(error.exit_code, "error")
    console_on(stream).print(Panel(Text(text), title=title, title_align="left", border_style="red"))


def show_crash(error: BaseException, stream: TextIO) -> None:
    """Write an unexpected error in one line, its traceback into a file."""
    with tempfile.NamedTemporaryFile("w", prefix="nnjobs-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    reason = printable(str(error)).partition("\n")[0][:300]
    print(f"nnjobs: unexpected {type(error).__name__}: {reason}", file=stream)
    print(f"  the full traceback is in {file.name}; `nnjobs --debug ...` shows it here", file=stream)


def print_json(result: dict[str, Any]) -> None:
    """Write the result to standard output as one line of standard JSON: NaN and infinity become null."""
    sys.stdout.write(json.dumps(_finite(result), allow_nan=False) + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
