"""``nnjobs split-study``."""

from __future__ import annotations

import contextlib
import sys

import click

from jobs.commands.options import configuration_options, json_option
from jobs.console.output import print_json
from jobs.console.training_display import display
from nnlib.config.load import load_config
from nnlib.core.errors import DivergedError


@click.command("split-study")
@click.argument("config_path", metavar="CONFIG")
@click.option("-o", "--output", metavar="URI", help="Folder of the study. [default: studies/NAME]")
@configuration_options
@json_option
def split_study(config_path: str, output: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Cut the net of CONFIG into sub-nets in many ways, train these apart, and compare what they make together.

    A whole net trains on part of the rows. Its hidden units are cut into groups; the sub-nets of the groups train on
    the rest of the rows, and are put together again. The whole net trains as long, for comparison. All partitions are
    trials of one run. The section `splitting` of the configuration says which are compared, `train.subnets` how
    sub-nets are made. The same command goes on where it was stopped.
    """
    # Imported now: --help need not load numpy and pyarrow.
    from jobs.console import split_summary as summary
    from jobs.experiments import split_study as experiment

    config = load_config(config_path, overrides)
    folder = f"studies/{config.name}" if output is None else output
    # Output of libraries must not mix with our JSON on standard output.
    with display(sys.stderr) as screen, contextlib.redirect_stdout(sys.stderr):
        study, scores = experiment.split_study(config, folder, listen=screen, inputs=(config_path,))
    for lines in (
        summary.score_lines(study),
        summary.method_lines(study),
        summary.property_lines(study),
        summary.place_lines(study, scores),
    ):
        click.echo("\n".join(lines) + "\n", err=True)
    if as_json:
        print_json(study.to_json())
    if study.diverged:
        raise click.exceptions.Exit(DivergedError.exit_code)
