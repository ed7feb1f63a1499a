"""``nnjobs status``."""

from __future__ import annotations

import time

import click

from jobs.commands.options import json_option
from jobs.console.output import print_json, printable
from jobs.console.run_state_lines import follow_line, state_lines
from nnlib.core.errors import StorageError
from nnlib.run.run_state import DEAD, RunState, follow_key, run_state
from nnlib.storage import storage

FOLLOW_SECONDS = 30.0
"""A run that is followed gets a line after this time, though nothing of it has changed."""


@click.command()
@click.argument("run")
@click.option("--follow", "-f", is_flag=True, help="Go on with a line per change, until the run has ended.")
@json_option
def status(run: str, follow: bool, as_json: bool) -> None:
    """Show how RUN is: its round, workers, speed, time left, what it waits for, or how it ended.

    RUN is its directory, here or in HDFS: any machine that reaches it sees the same. The exit code is 0 if the state
    could be read; with --follow it is that of the run: 0 finished, 4 failed or killed, 5 diverged, 130 interrupted.
    """
    state = _followed(run) if follow else run_state(run)
    if as_json:
        print_json(state.to_json())
    else:
        click.echo(printable("\n".join(state_lines(state))))
    if follow and state.exit_code:
        raise click.exceptions.Exit(state.exit_code)


def _followed(run: str) -> RunState:
    """Show a line per change until no driver works on the run; return its last state."""
    pause = storage(run).status_seconds
    state = run_state(run)
    shown, shown_at = None, 0.0
    while not state.is_over or _is_started_again(run, state):
        if follow_key(state) != shown or time.monotonic() - shown_at >= FOLLOW_SECONDS:
            shown, shown_at = follow_key(state), time.monotonic()
            click.echo(printable(follow_line(state)), err=True)
        time.sleep(pause)
        try:
            state = run_state(run)
        except StorageError as error:  # it was there a moment ago
            click.echo(printable(f"cannot read the run's state: {error.message}"), err=True)
    return state


def _is_started_again(run: str, state: RunState) -> bool:
    """Whether a cluster will start another driver in the place of a dead one."""
    if state.state != DEAD:
        return False
    from jobs.runners.hadoop.driver_application import living_driver  # late: most runs have their driver elsewhere

    return living_driver(storage(run)) is not None
