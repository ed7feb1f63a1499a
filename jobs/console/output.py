"""What a command tells at its end: errors for people on standard error, results for programs on standard output."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import traceback
from typing import Any, TextIO

from nnlib.core.errors import NnjobsError

KINDS = {
    2: "wrong usage or configuration",
    3: "bad data",
    4: "a job, the cluster or the storage failed",
    5: "training diverged",
}
"""Exit code -> what kind of failure it is."""

MAX_LINES = 30  # an error is one screen


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream can show a live display."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Text without the control characters that a file name or a column could carry into a terminal."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def show_error(error: NnjobsError, stream: TextIO) -> None:
    """One error, at most a screen: in a frame on a terminal, as plain lines elsewhere."""
    lines = printable(str(error)).splitlines()
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"  ... and {len(lines) - MAX_LINES + 1} more lines"]
    text = "\n".join(lines)
    if not is_terminal(stream):
        print(f"nnjobs: {text}", file=stream)
        return
    # rich is imported where it draws: it costs a twentieth of a second that a run in a script need not pay.
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    title = KINDS.get(error.exit_code, "error")
    Console(file=stream).print(Panel(Text(text), title=title, title_align="left", border_style="red"))


def show_crash(error: BaseException, stream: TextIO) -> None:
    """An error nobody planned: what it is, and where the traceback lies."""
    with tempfile.NamedTemporaryFile("w", prefix="nnjobs-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    reason = printable(str(error)).partition("\n")[0][:300]
    print(f"nnjobs: unexpected {type(error).__name__}: {reason}", file=stream)
    print(f"  the full traceback is in {file.name}; `nnjobs --debug ...` shows it here", file=stream)


def print_json(result: dict[str, Any]) -> None:
    """The result as one line of standard JSON (NaN and infinity become null), the last of standard output."""
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
