"""The entry point ``nnjobs`` (and ``python -m jobs``): surroundings, the command, one exit code for every ending."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from nnlib.core.machine import BLAS_VARIABLES

PYTHONS = ((3, 11), (3, 13))  # first and last that are supported


def refusal(platform: str, version: tuple[int, ...]) -> str | None:
    """Why this machine cannot run nnjobs, in one line; None if it can."""
    if platform in ("win32", "cygwin"):
        return "nnjobs runs on Linux and macOS; on Windows run it inside WSL (wsl --install)"
    if not PYTHONS[0] <= version[:2] <= PYTHONS[1]:
        found = ".".join(str(part) for part in version[:3])
        return f"nnjobs needs Python 3.11, 3.12 or 3.13; this is {found} ({sys.executable})"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    if (reason := refusal(sys.platform, sys.version_info[:3])) is not None:
        print(reason, file=sys.stderr)
        return 2
    # BLAS reads these when numpy is imported, so they are set before anything is; tasks in processes inherit them.
    # A run that asks for more threads sets them itself (runtime.blas_threads).
    for variable in BLAS_VARIABLES:
        os.environ.setdefault(variable, "1")
    return _run(list(sys.argv[1:] if arguments is None else arguments))


def _interrupt(number: int, frame: object) -> None:
    """`kill` ends a command as Ctrl-C does: whole rounds are kept, tasks are ended, the line that resumes is shown."""
    raise KeyboardInterrupt


def _run(arguments: list[str]) -> int:
    import click  # after the checks above: they must work where nothing is installed

    from jobs.commands.cli import cli
    from jobs.console.output import show_crash, show_error
    from nnlib.core.errors import NnjobsError
    from nnlib.storage.credentials import refuse_credentials

    debug = "--debug" in arguments[:1]
    with contextlib.suppress(ValueError):  # not in the main thread: its owner answers signals
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        for argument in arguments:
            refuse_credentials(argument)
        code = cli.main(arguments, prog_name="nnjobs", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("nnjobs: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`nnjobs ... | head`): nothing to tell, and nobody to tell it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
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
