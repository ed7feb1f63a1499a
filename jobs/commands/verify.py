"""``nnjobs verify``."""

from __future__ import annotations

import click

from jobs.commands.options import json_option, runner_option
from jobs.console.output import print_json
from nnlib.core.errors import MismatchError
from nnlib.core.events import Event, Note


@click.command()
@click.argument("run")
@click.option("--round", "round_", type=click.IntRange(min=0), help="Recompute this round; default: the last one.")
@click.option("--all", "every", is_flag=True, help="Recompute every round, from the seeds on.")
@runner_option("the run's own")
@json_option
def verify(run: str, round_: int | None, every: bool, runner: str | None, as_json: bool) -> None:
    """Check that RUN is what its ledger says, and that recomputing its rounds gives the same bits.

    A round is recomputed from the nearest model kept before it: in collective mode that may be many rounds ago. Any
    runner gives the same bits.

    Ends with code 3 and the names of what was altered if it is not.
    """
    from jobs.driver.verification import verify as check  # imported now: --help need not load mrjob and pyarrow

    found = check(run, round_=round_, every=every, runner=runner, listen=_tell)
    for note in found.notes:
        click.echo(note, err=True)
    if as_json:
        print_json(found.to_json())
    if found.problems:
        shown = "\n".join(f"    {problem}" for problem in found.problems[:20])
        more = f"\n    and {len(found.problems) - 20} more" if len(found.problems) > 20 else ""
        raise MismatchError(f"this run is not what its ledger says:\n{shown}{more}", run=found.run_dir)
    what = ", ".join(map(str, found.recomputed)) or "none"
    click.echo(f"verified: {found.rounds} rounds, ledger {found.ledger}; recomputed bit for bit: {what}", err=True)


def _tell(event: Event) -> None:
    if isinstance(event, Note):
        click.echo(event.text, err=True)
