"""``nnjobs cancel``."""

from __future__ import annotations

import time

import click

from jobs.commands.options import json_option
from jobs.console.output import print_json, printable
from jobs.console.run_state_lines import headline
from jobs.console.training_display import resume_line
from nnlib.core.errors import JobError, UsageError
from nnlib.core.waiting import waiting_for
from nnlib.run.cancel_request import CancelRequest, ask_to_end, read_request
from nnlib.run.driver_status import FINISHED
from nnlib.run.run_state import DEAD, RunState, run_state
from nnlib.storage import storage

WAIT_SECONDS = 120.0
POLL_SECONDS = 0.5


@click.command()
@click.argument("run")
@click.option(
    "--wait",
    type=click.FloatRange(0.0, 1e6),
    default=WAIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for the end; 0 only asks for it.",
)
@json_option
def cancel(run: str, wait: float, as_json: bool) -> None:
    """End RUN, whose driver may work on another machine: as Ctrl-C there would.

    Its jobs end, committed rounds stay, and `nnjobs train --resume` goes on. The exit code is 0 if no driver works on
    the run any more (or, with --wait 0, if the request is written), 4 if its driver did not answer in time.
    """
    try:
        state = run_state(run)
    except UsageError:
        if _end_detached_driver(run):
            return  # it had not begun
        raise
    asked = False
    if state.state == DEAD and _end_detached_driver(run):
        state = run_state(run)
    if not state.is_over and state.lease is not None:
        state, asked = _ask(run, state, state.lease, wait)
    if as_json:
        print_json({"asked": asked, **state.to_json()})
    text = headline(state)
    if not asked:
        text = "this run is finished" if state.state == FINISHED else f"no driver works on this run ({text})"
        text = f"{text}: there is nothing to end"
    click.echo(printable(text), err=True)
    if state.is_over and state.state != FINISHED:
        click.echo(printable(f"to go on:\n  {resume_line(state.run_dir)}"), err=True)


def _end_detached_driver(run: str) -> bool:
    """End the application of a detached driver that has not begun, or that is dead and would be started again; False if
    there is none."""
    from jobs.runners.hadoop.driver_application import end_driver, living_driver  # late: most runs have none

    name = living_driver(storage(run))
    if name is None:
        return False
    end_driver(name)
    click.echo(f"ended {name}, which would have driven this run", err=True)
    return True


def _ask(run: str, state: RunState, lease: str, wait: float) -> tuple[RunState, bool]:
    """Write the request, unless somebody has, and wait for the driver's end; return the last state."""
    place = storage(run, private=True)
    driver = f"the driver, process {state.process} on {state.host}"
    if ask_to_end(place, lease, CancelRequest.ours()):
        click.echo(printable(f"asked {driver}, to end"), err=True)
    else:
        before = read_request(place, lease)
        by = "" if before is None else f" by {before.text()}"
        click.echo(printable(f"{driver}, was asked to end before{by}"), err=True)
    deadline = time.monotonic() + wait
    with waiting_for(f"{driver}, has not ended yet"):
        while wait and not state.is_over and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS if not place.is_remote else 2 * POLL_SECONDS)
            state = run_state(run)
    if wait and not state.is_over:
        raise JobError(
            f"{driver}, did not end within {wait:g} s",
            hint="nnjobs status shows when it was heard of last; if it is dead, its lease runs out within 2 minutes",
            run=state.run_dir,
        )
    return state, True
