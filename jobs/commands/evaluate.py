"""``nnjobs evaluate``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from jobs.commands.options import configuration_options, json_option
from jobs.console.output import console_on, is_terminal, print_json
from jobs.console.training_display import shown_path
from jobs.runners.hadoop.kerberos_login import use_keytab
from nnlib.config.load import load_config
from nnlib.core.errors import DivergedError
from nnlib.core.progress import progress_shown_by

if TYPE_CHECKING:
    from jobs.experiments.evaluation import Progress
    from nnlib.evaluation.scores_table import Variant


@click.command()
@click.argument("config_path", metavar="CONFIG")
@click.option("-o", "--output", metavar="URI", help="Folder of the evaluation. [default: evaluations/NAME]")
@configuration_options
@click.option("--at-once", type=click.IntRange(min=1), help="Runs at once. [default: one a core]")
@click.option("--time", "timed", is_flag=True, help="Also measure times: one split and one run at a time.")
@click.option("--report/--no-report", default=True, help="Write report.html about the runs. [default: yes]")
@json_option
def evaluate(
    config_path: str,
    output: str | None,
    overrides: tuple[str, ...],
    at_once: int | None,
    timed: bool,
    report: bool,
    as_json: bool,
) -> None:
    """Compare numbers of workers over all splits of CONFIG: one run each, all splits trained in the same jobs.

    Finished runs are not repeated: the same command goes on where it was stopped. The section `evaluate` of the
    configuration says which workers, streams and epochs to compare.
    """
    # Imported now: --help need not load numpy and pyarrow.
    from jobs.console import evaluation_summary as summary
    from jobs.experiments import evaluation

    config = load_config(config_path, overrides)
    use_keytab(config.runtime)
    folder = f"evaluations/{config.name}" if output is None else output
    with _progress() as progress:
        result = evaluation.evaluate(
            config, folder, at_once=at_once, timed=timed, report=report, progress=progress, inputs=(config_path,)
        )
    for lines in (
        [] if result["chosen"] is None else summary.choice_lines(result["chosen"]),
        summary.score_lines(config, result["scores"], result["chosen"]),
        [] if result["seconds"] is None else summary.time_lines(config, result["seconds"]),
        summary.comparison_lines(result["comparisons"]),
        summary.diverged_lines(result["diverged"]),
        _addresses(result, report),
    ):
        if lines:
            click.echo("\n".join(lines) + "\n", err=True)
    if as_json:
        print_json(result)
    if result["diverged"]:
        raise click.exceptions.Exit(DivergedError.exit_code)


def _addresses(result: dict[str, Any], wanted: bool) -> list[str]:
    lines = [f"scores of every trial: {shown_path(result['output'])}/results.parquet and results.json"]
    if result["report"] is not None:
        lines.append(f"report, with curves and errors by class: {shown_path(result['report'])}")
    elif wanted:
        lines.append(
            'no report, for matplotlib or Jinja2 is missing: pip install "nnjobs[report]", then the same command'
        )
    return lines


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Show a bar with the time left for every run on a terminal, elsewhere a line at every tenth of a run."""
    if not is_terminal(sys.stderr):
        yield _Lines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("epochs")]
    columns += [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
    with progress_shown_by(None), Progress(*columns, console=console_on(sys.stderr)) as bars:
        tasks: dict[Variant, Any] = {}

        def show(variant: Variant, done: int, epochs: int) -> None:
            if variant not in tasks:
                tasks[variant] = bars.add_task(variant.name, total=epochs, completed=done)
            bars.update(tasks[variant], completed=done, total=epochs)

        yield show


class _Lines:
    """A plain line whenever a run has done another tenth of its epochs."""

    def __init__(self) -> None:
        self._tenths: dict[Variant, int] = {}

    def __call__(self, variant: Variant, done: int, epochs: int) -> None:
        tenth = 10 * done // max(epochs, 1)
        if self._tenths.get(variant) != tenth:
            self._tenths[variant] = tenth
            click.echo(f"{variant.name}: epoch {done} of {epochs}", err=True)
