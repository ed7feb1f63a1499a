"""``nnjobs verify``."""

from __future__ import annotations

import click

from jobs.commands.options import json_option, runner_option, trust_option
from jobs.console.output import print_json
from nnlib.core.errors import MismatchError
from nnlib.core.events import Event, Note


@click.command()
@click.argument("run")
@click.option("--round", "round_", type=click.IntRange(min=0), help="Recompute this round. [default: the last one]")
@click.option("--all", "every", is_flag=True, help="Recompute every round, from the seeds on.")
@runner_option("the run's own")
@trust_option
@json_option
def verify(run: str, round_: int | None, every: bool, runner: str | None, as_json: bool) -> None:
    """Check RUN against its ledger, and recompute its rounds to the same bits.

    A round is recomputed from the nearest model kept before it: in collective mode that may be many rounds before. All
    runners compute the same bits.

    If the run was altered, the exit code is 3 and the error names what was altered.
    """
    from jobs.driver.verification import verify as check  # imported now: --help need not load mrjob and pyarrow

    result = check(run, round_=round_, every=every, runner=runner, listen=_show_note)
    for note in result.notes:
        click.echo(note, err=True)
    if as_json:
        print_json(result.to_json())
    if result.problems:
        shown = "\n".join(f"    {problem}" for problem in result.problems[:20])
        more = f"\n    and {len(result.problems) - 20} more" if len(result.problems) > 20 else ""
        raise MismatchError(f"this run is not what its ledger says:\n{shown}{more}", run=result.run_dir)
    what = ", ".join(map(str, result.recomputed)) or "none"
    click.echo(f"verified: {result.rounds} rounds, ledger {result.ledger}; recomputed bit for bit: {what}", err=True)


def _show_note(event: Event) -> None:
    if isinstance(event, Note):
        click.echo(event.text, err=True)
