"""The entry point ``nnjobs`` (and ``python -m jobs``): checks the Python, runs the command, returns an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from nnlib.core.interrupts import interrupted_by_signals
from nnlib.core.machine import BLAS_VARIABLES
from nnlib.core.standard_streams import standard_streams

PYTHONS = ((3, 11), (3, 13))
"""The first and the last supported Python."""

INTERRUPTED = 130
OUTPUT_LOST = 4
"""Exit code of a command that did its work, but whose standard output could not be written (a full disk)."""


def refusal(platform: str, version: tuple[int, ...]) -> str | None:
    """Say in one line why this machine cannot run nnjobs; None if it can."""
    if platform in ("win32", "cygwin"):
        return "nnjobs runs on Linux and macOS; on Windows run it inside WSL (wsl --install)"
    if not PYTHONS[0] <= version[:2] <= PYTHONS[1]:
        this = ".".join(str(part) for part in version[:3])
        return f"nnjobs needs Python 3.11, 3.12 or 3.13; this is {this} ({sys.executable})"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Whatever the shell or an embedding program did to the standard streams, the command does its work to the end.
    """
    with standard_streams() as streams:
        try:
            with interrupted_by_signals():
                code = _run(list(sys.argv[1:] if arguments is None else arguments))
        except KeyboardInterrupt:  # another one, while the first was answered
            code = INTERRUPTED
        if (lost := streams.flush()) is not None:
            print(f"nnjobs: cannot write to standard output: {lost.strerror}", file=sys.stderr)
            code = code or OUTPUT_LOST
        return code


def _refuse_credentials(arguments: Sequence[str]) -> None:
    addresses = [argument for argument in arguments if "@" in argument]  # as user@host has
    if addresses:
        from nnlib.storage.credentials import refuse_credentials  # late: `nnjobs --version` needs no storage

        for address in addresses:
            refuse_credentials(address)


def _run(arguments: list[str]) -> int:
    if (reason := refusal(sys.platform, sys.version_info[:3])) is not None:
        print(reason, file=sys.stderr)
        return 2
    # BLAS reads these when numpy is imported, so they are set before any import; tasks in processes inherit them.
    # A run with more threads sets them itself (runtime.blas_threads).
    for variable in BLAS_VARIABLES:
        os.environ.setdefault(variable, "1")

    import click  # after the checks of the Python, which must work where nothing is installed

    from jobs.commands.cli import cli
    from jobs.console.output import printable, show_crash, show_error
    from jobs.console.progress_display import ProgressDisplay
    from nnlib.core.errors import NnjobsError
    from nnlib.core.notes import listening
    from nnlib.core.progress import progress_shown_by
    from nnlib.core.waiting import WaitReport, wait_line, waits_reported_to

    debug = "--debug" in arguments[:1]
    try:
        _refuse_credentials(arguments)
        notes = listening(lambda text: click.echo(f"note: {text}", err=True))

        def show_wait(wait: WaitReport) -> None:
            if wait.what:
                click.echo(printable(wait_line(wait)), err=True)

        with notes, waits_reported_to(show_wait), progress_shown_by(ProgressDisplay(sys.stderr)):
            code = cli.main(arguments, prog_name="nnjobs", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("nnjobs: interrupted", file=sys.stderr)
        return INTERRUPTED
    except NnjobsError as error:
        if debug:
            traceback.print_exc()
        show_error(error, sys.stderr)
        return error.exit_code
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            show_crash(error, sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
