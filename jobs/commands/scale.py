"""``nnjobs scale``."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, TextIO

import click

from jobs.commands.options import configuration_options, json_option
from jobs.console.output import print_json
from jobs.console.tables import show_table
from jobs.runners.hadoop.kerberos_login import use_keytab
from nnlib.config.load import load_config
from nnlib.core.errors import DivergedError

if TYPE_CHECKING:
    from jobs.experiments.scaling_study import ScalingStudy


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option(
    "--workers",
    default="1,2,4,8",
    show_default=True,
    metavar="COUNTS",
    help="Numbers of workers; 1 is always measured.",
)
@configuration_options
@click.option("-o", "--output", metavar="URI", help="Where runs and results are kept. [default: runs/NAME-scale]")
@click.option(
    "--repeat",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Runs of each number; the median counts.",
)
@json_option
def scale(
    config_path: str,
    workers: str,
    overrides: tuple[str, ...],
    output: str | None,
    repeat: int,
    as_json: bool,
) -> None:
    """Measure the training of CONFIG on several numbers of workers.

    Shows time, speed-up, efficiency, PI % = (T1 - Tx) / T1 * 100, examples per second and accuracy, one run for each
    number. Finished runs are not repeated.
    """
    # Imported now: --help and a wrong configuration need not wait for mrjob and pyarrow.
    from jobs.experiments.scaling import FIGURE, STUDY, claimed_results, load_warning, measure
    from jobs.experiments.scaling_study import study_timings
    from nnlib.run.ledger import canonical
    from nnlib.simulate.model import worker_counts

    config = load_config(config_path, overrides)
    use_keytab(config.runtime)
    counts = sorted({1, *worker_counts(workers)})
    if (warning := load_warning()) is not None:
        click.echo(warning, err=True)
    folder = f"runs/{config.name}-scale" if output is None else output
    with claimed_results(config, folder, (config_path,)) as results:
        with contextlib.redirect_stdout(sys.stderr):  # whatever prints while training must not get into our JSON
            notify = partial(click.echo, err=True)
            timings = measure(config, counts, results.root, repeat=repeat, notify=notify)
        study = study_timings(config, timings)
        results.write(STUDY, canonical(study.to_json()))
        figure = _figure(study)
        if figure is not None:
            results.write(FIGURE, figure)
    stream = sys.stderr if as_json else sys.stdout
    _show_study(study, stream)
    click.echo(f"kept in {results.root}", file=stream)
    if as_json:
        print_json({**study.to_json(), "output": results.root})
    if any(point.diverged for point in study.points):
        raise click.exceptions.Exit(DivergedError.exit_code)


def _show_study(study: ScalingStudy, stream: TextIO) -> None:
    """Write the table of a study, with the published times in it."""
    published = {point.workers: point for point in study.published.points} if study.published else {}
    head = ["workers", "seconds", "speed-up", "efficiency", "PI %", "examples/s", "accuracy %"]
    head += ["study s", "study PI %"] if published else []
    rows = []
    for point in study.points:
        accuracy = point.test_accuracy
        deviation = "" if point.test_accuracy_sd is None else f" ±{100 * point.test_accuracy_sd:.2f}"
        row = [
            str(point.workers),
            f"{point.seconds:.2f}{'*' if point.resumed else ''}",
            f"{point.speedup:.2f}",
            f"{point.efficiency:.2f}",
            "-" if point.workers == 1 else f"{point.improvement:.2f}",
            f"{point.examples_per_second:,.0f}",
            "-" if accuracy is None else f"{100 * accuracy:.2f}{deviation}",
        ]
        if published:
            theirs = published.get(point.workers)
            gain = None if theirs is None else theirs.improvement
            row += ["-" if theirs is None else f"{theirs.seconds:.2f}", "-" if gain is None else f"{gain:.2f}"]
        rows.append(row)
    trials = f", {study.trials} trials in the same jobs" if study.trials > 1 else ""
    show_table(f"{study.name}: {study.runner} runner{trials}", head, rows, stream)
    if any(point.resumed for point in study.points):
        click.echo("* interrupted and resumed: the time of its rounds, without start and final scores", file=stream)
    if study.published is not None:
        click.echo(f"study: {study.published.title}; {study.published.note}.", file=stream)


def _figure(study: ScalingStudy) -> bytes | None:
    """The study as a PNG, or None without matplotlib."""
    try:
        from jobs.experiments.scaling_plot import draw_study
    except ImportError:
        click.echo("no figure: matplotlib is not installed", err=True)
        return None
    return draw_study(study)
