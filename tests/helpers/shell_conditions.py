"""What a shell, a terminal or a scheduler may do to a command before it starts, as a table."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import started

BOTH = frozenset({"stdout", "stderr"})


@dataclass(frozen=True)
class Condition:
    """How a command is started.

    ``shell``: a script of bash that starts ``"$@"``. ``environment``: variables that differ; None: not set.
    ``hidden``: streams whose text is not to be seen. ``no_reader``: streams that are pipes without a reader.
    ``terminal``: all streams are a terminal, which is closed at once if ``hangs_up``. ``encoding``: of the streams.
    ``full``: standard output is on a full disk.
    """

    shell: str = 'exec "$@"'
    environment: Mapping[str, str | None] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    no_reader: frozenset[str] = frozenset()
    terminal: bool = False
    hangs_up: bool = False
    encoding: str = "utf-8"
    full: bool = False


def _hides(shell: str, *streams: str) -> Condition:
    return Condition(shell, hidden=frozenset(streams))


def _variables(**environment: str | None) -> Condition:
    return Condition(environment=environment)


def _terminal(**environment: str | None) -> Condition:
    variables = {"TERM": "xterm-256color", "NO_COLOR": None, **environment}
    return Condition(environment=variables, hidden=BOTH, terminal=True)


CONDITIONS = {
    "no standard input": Condition('exec "$@" <&-'),
    "no standard output": _hides('exec "$@" >&-', "stdout"),
    "no standard error": _hides('exec "$@" 2>&-', "stderr"),
    "no input and output": _hides('exec "$@" <&- >&-', "stdout"),
    "no streams": _hides('exec "$@" <&- >&- 2>&-', *BOTH),
    "input from the null device": Condition('exec "$@" </dev/null'),
    "output to the null device": _hides('exec "$@" >/dev/null 2>&1', *BOTH),
    "output on a full disk": Condition('exec "$@" >/dev/full', hidden=frozenset({"stdout"}), full=True),
    "messages on a full disk": _hides('exec "$@" 2>/dev/full', "stderr"),
    "output without a reader": Condition(no_reader=frozenset({"stdout"}), hidden=frozenset({"stdout"})),
    "messages without a reader": Condition(no_reader=frozenset({"stderr"}), hidden=frozenset({"stderr"})),
    "no reader at all": Condition(no_reader=BOTH, hidden=BOTH),
    "a reader of one line": _hides('set -o pipefail; "$@" | head -n 1', "stdout"),
    "a reader of one message": _hides('set -o pipefail; { "$@" 2>&1 >&3 | head -n 1 >&2; } 3>&1', "stderr"),
    "SIGINT ignored": Condition("trap '' INT; exec \"$@\""),
    "SIGHUP ignored": Condition("trap '' HUP; exec \"$@\""),
    "SIGTERM ignored": Condition("trap '' TERM; exec \"$@\""),
    "SIGPIPE ignored": Condition("trap '' PIPE; exec \"$@\""),
    "in the background": Condition('"$@" & wait $!'),
    "nohup": Condition('exec nohup "$@" </dev/null'),
    "setsid": Condition('exec setsid -w "$@"'),
    "umask 077": Condition('umask 077; exec "$@"'),
    "ASCII streams": Condition(environment={"PYTHONIOENCODING": "ascii"}, encoding="ascii"),
    "Latin-1 streams": Condition(environment={"PYTHONIOENCODING": "latin-1"}, encoding="latin-1"),
    "an ASCII system": Condition(
        environment={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, encoding="ascii"
    ),
    "the C locale": _variables(LC_ALL="C"),
    "no HOME": _variables(HOME=None, XDG_CACHE_HOME=None),
    "a HOME that cannot be written": _variables(HOME="/proc/nowhere", XDG_CACHE_HOME=None),
    "a HOME that is a file": _variables(HOME="/dev/null", XDG_CACHE_HOME=None),
    "no PATH": _variables(PATH=None),
    "no TERM": _variables(TERM=None),
    "a dumb TERM": _variables(TERM="dumb"),
    "colours forced": Condition(environment={"FORCE_COLOR": "1", "TERM": "xterm-256color"}, hidden=BOTH),
    "COLUMNS=0": _variables(COLUMNS="0", LINES="0"),
    "COLUMNS=-1": _variables(COLUMNS="-1", LINES="-1"),
    "COLUMNS=x": _variables(COLUMNS="x", LINES=""),
    "a terminal": _terminal(),
    "a terminal without TERM": _terminal(TERM=None),
    "a dumb terminal": _terminal(TERM="dumb"),
    "an ASCII terminal": _terminal(PYTHONIOENCODING="ascii"),
    "a terminal of 1 column": _terminal(COLUMNS="1", LINES="1"),
    "a terminal of 0 columns": _terminal(COLUMNS="0", LINES="0"),
    "a terminal of -5 columns": _terminal(COLUMNS="-5"),
    "a terminal that hangs up": Condition(
        environment={"TERM": "xterm-256color"}, hidden=BOTH, terminal=True, hangs_up=True
    ),
}
"""Name -> condition. Under each, a command is to end as it would otherwise."""


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code and what it wrote to its streams."""

    code: int
    stdout: bytes
    stderr: bytes


def outcome(command: Sequence[str], condition: Condition, folder: Path, seconds: float = 120.0) -> Outcome:
    """Run a command under a condition, in ``folder``; it has so many seconds."""
    changed = {**os.environ, **condition.environment}
    environment = {name: value for name, value in changed.items() if value is not None}
    bash = ["/bin/bash", "-c", condition.shell, "bash", *command]
    options: dict[str, Any] = {"cwd": folder, "env": environment}
    if condition.terminal:  # without bash, which would make the terminal its own and get SIGHUP from it
        return _on_terminal(command, options, condition.hangs_up, seconds)
    pipes = {}
    for stream in ("stdout", "stderr"):
        options[stream] = subprocess.PIPE
        if stream in condition.no_reader:
            reader, pipes[stream] = os.pipe()
            os.close(reader)
            options[stream] = pipes[stream]
    with started(bash, **options) as process:
        for end in pipes.values():
            os.close(end)
        stdout, stderr = process.communicate(timeout=seconds)
    return Outcome(process.returncode, stdout or b"", stderr or b"")


def _on_terminal(command: Sequence[str], options: dict[str, Any], hangs_up: bool, seconds: float) -> Outcome:
    controller, terminal = pty.openpty()
    with started(command, stdin=terminal, stdout=terminal, stderr=terminal, **options) as process:
        os.close(terminal)
        text = b""
        try:
            while not hangs_up and (part := os.read(controller, 1 << 16)):
                text += part
        except OSError:
            pass  # so a terminal ends whose last program has ended
        os.close(controller)
        return Outcome(process.wait(seconds), text, text)
