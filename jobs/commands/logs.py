"""``nnjobs logs``."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from jobs.console.output import printable
from jobs.runners.worker_logs import LogRequest, find_worker_log
from nnlib.core.errors import JobError, StorageError, UsageError
from nnlib.run.directory import LOG, RunDirectory
from nnlib.run.run_state import RunState, run_state


@click.command()
@click.argument("run")
@click.option("--worker", "-w", type=click.IntRange(min=0), metavar="K", help="The log of worker K.")
@click.option(
    "--round",
    "round_",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --worker: of the job that trains round N. [default: the newest job]",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is new, until the run has ended.")
def logs(run: str, worker: int | None, round_: int | None, follow: bool) -> None:
    """Print the log of RUN, or of one of its workers, wherever it lies.

    The run's log is in its directory. A worker's is with its runner: in local files, in its container on a node of the
    cluster, or where YARN keeps the logs of ended containers. Where it is gone, one line says why (exit code 4).
    """
    if round_ is not None and worker is None:
        raise UsageError("--round needs the worker: --worker K")

    def text_of(state: RunState) -> str:
        directory = RunDirectory.open(run)
        if worker is None:
            return _log_of(directory)
        found = find_worker_log(LogRequest(directory, state, worker, round_))
        _say_where(found.where)
        return found.text

    shown_places: set[str] = set()

    def _say_where(where: str) -> None:
        if where not in shown_places:
            shown_places.add(where)
            click.echo(printable(f"from {where}:"), err=True)

    state = run_state(run)
    if follow and not state.is_over:
        _follow(run, state, text_of)
    else:
        _print(text_of(state))


def _log_of(run: RunDirectory) -> str:
    if not run.storage.exists(LOG):
        raise JobError("the run has no log yet, or has lost it", file=f"{run.address}/{LOG}")
    return run.storage.read(LOG).decode("utf-8", "replace")


def _follow(run: str, state: RunState, text_of: Callable[[RunState], str]) -> None:
    """Print a text that grows, until no driver works on the run. Another text in its place is printed from its
    begin."""
    pause = RunDirectory(run).storage.status_seconds
    shown = ""
    reason = None
    while True:
        try:
            text = text_of(state)
            _print(text.removeprefix(shown) if text.startswith(shown) else text)
            shown = text
        except (JobError, StorageError) as error:
            if str(error) != reason:
                reason = str(error)
                click.echo(printable(error.message), err=True)
        if state.is_over:
            return
        time.sleep(pause)
        state = run_state(run)


def _print(text: str) -> None:
    if text:
        click.echo("".join(_visible(character) for character in text), nl=not text.endswith("\n"))


def _visible(character: str) -> str:
    """A character of a log, which must not control the terminal."""
    return character if character.isprintable() or character in "\n\t" else "?"
