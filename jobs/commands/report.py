"""``nnjobs report``."""

from __future__ import annotations

import click

from jobs.commands.options import json_option, trust_option
from jobs.console.output import print_json
from jobs.console.training_display import shown_path
from nnlib.report import write_report


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "-o", "--output", metavar="PATH", help="The page, or a directory for it. [default: RUN, or . for several runs]"
)
@trust_option
@json_option
def report(runs: tuple[str, ...], output: str | None, as_json: bool) -> None:
    """Write a page, report.html, about RUN or about several runs compared. Its figures are also files in figures/.

    The page needs no server and no network: curves, errors by class, calibration, statistics over the splits, times,
    configuration and hashes. Of several runs it shows which settings differ and whether the scores do;
    what concerns one run alone is folded.
    """
    result = write_report(runs, output)
    figures = f", and {len(result['figures'])} files in figures/" if result["figures"] else ""
    click.echo(f"{shown_path(result['output'])}{figures}", err=True)
    if as_json:
        print_json(result)
