"""``nnjobs predict``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from jobs.commands.names import split_names
from jobs.commands.options import JobOptions, job_options, json_option, trial_option, trust_option
from jobs.commands.reading_options import reading_options
from jobs.console.output import print_json
from jobs.console.training_display import metrics_text, score_text, shown_path
from nnlib.core.errors import UsageError
from nnlib.inference.prediction_formats import FORMATS, STANDARD_OUTPUT, choose_format, named_format
from nnlib.inference.prediction_settings import PredictionSettings

if TYPE_CHECKING:
    from nnlib.config.schema import Config
    from nnlib.data.importing.read_options import ReadingChanges


@click.command()
@click.argument("run")
@click.argument("dataset")
@click.option(
    "-o", "--output", required=True, metavar="URI", help="The file to write, - for standard output; with -r a folder."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    help="Format of the output. [default: by its suffix; parquet without one; csv on standard output]",
)
@click.option(
    "--id",
    "ids",
    multiple=True,
    metavar="A,B",
    help="Columns of the data to write with the predictions; repeatable. Of a dataset: its kept columns and the label.",
)
@click.option(
    "--threshold",
    type=float,
    metavar="P",
    help="With two classes: a row gets the second one if its probability is at least P. [default: the more probable]",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="K",
    help="Write the K most probable classes with their probabilities, instead of those of all classes.",
)
@trial_option
@reading_options("--input-format")
@click.option("--tasks", type=click.IntRange(min=1), help="With -r: map tasks. [default: by the shards' size]")
@job_options
@trust_option
@json_option
def predict(
    run: str,
    dataset: str,
    output: str,
    format_: str | None,
    ids: tuple[str, ...],
    threshold: float | None,
    top: int | None,
    trial: int,
    reading: ReadingChanges,
    tasks: int | None,
    job: JobOptions,
    as_json: bool,
) -> None:
    """Apply the model of RUN to DATASET: a dataset, or a file in any format that can be imported.

    A file is read as those of the model's dataset were, unless the options say otherwise.

    Writes the predicted class and the probabilities (for regression the predicted value) of every row, as CSV, TSV,
    JSON lines or Parquet, and prints the score if the data has labels. With -r a job does it, for a dataset, and writes
    a Parquet file for each of its shards; the same command adds the missing files of an incomplete folder.
    """
    # Imported now: --help need not load numpy and pyarrow.
    from nnlib.config.render import from_resolved
    from nnlib.run.directory import CONFIG, RunDirectory

    def read(overrides: Sequence[str]) -> Config:
        directory = RunDirectory.open(run)
        text = directory.storage.read(CONFIG).decode(errors="replace")
        return from_resolved(text, f"{directory.address}/{CONFIG}", overrides)

    runtime = job.runtime(read)
    if not all(map(split_names, ids)):
        raise UsageError("--id names no column", hint="is a variable of the shell not set?")
    settings = PredictionSettings(tuple(name for each in ids for name in split_names(each)), threshold, top)
    if runtime is None:
        if tasks is not None:
            raise UsageError("--tasks is for a job: choose a runner for it with -r")
        result = _predict_here(run, dataset, output, format_, settings, trial, reading, as_json)
    else:
        _check_folder(output, format_)
        if reading:
            raise UsageError("with -r the data is a dataset, which needs no options of reading files")
        from jobs.batch.predict import predict as predict_by_job

        note = partial(click.echo, err=True)
        with contextlib.redirect_stdout(sys.stderr):
            result = predict_by_job(
                run, dataset, output, runtime, trial=trial, tasks=tasks, settings=settings, note=note
            )
    score = score_text(result.get("test_accuracy"), result.get("test_r2")).removeprefix(
        "test "
    )  # the rows may be those of the training
    rows = f"{result['rows']:,} rows" if "rows" in result else "predictions"
    where = "on standard output" if output == STANDARD_OUTPUT else f"in {shown_path(output)}"
    click.echo(f"{rows} {where}{f', {score}' if score else ''}", err=True)
    metrics = {name.removeprefix("test_"): value for name, value in result.items() if name.startswith("test_")}
    if others := metrics_text(metrics):
        click.echo(f"  {others}", err=True)
    if as_json:
        print_json(result)


def _predict_here(
    run: str,
    dataset: str,
    output: str,
    format_: str | None,
    settings: PredictionSettings,
    trial: int,
    reading: ReadingChanges,
    as_json: bool,
) -> dict[str, Any]:
    """Predict in this process. Returns what ``--json`` prints."""
    from jobs.console.binary_output import binary_output
    from nnlib.data.importing.source_files import input_addresses
    from nnlib.inference.prediction_file import predict_to_file
    from nnlib.inference.trained_model import TrainedModel
    from nnlib.storage.outputs import refuse_open_input

    chosen = choose_format(output, format_)
    if output == STANDARD_OUTPUT:
        if as_json:
            raise UsageError("-o - and --json both write to standard output: choose one")
        if chosen == "parquet" and sys.stdout is not None and sys.stdout.isatty():
            raise UsageError("Parquet is not for a terminal: name a file with -o, or use --format csv")
        refuse_open_input(1, (run, *input_addresses((dataset,))))
    target = binary_output() if output == STANDARD_OUTPUT else output
    with contextlib.redirect_stdout(sys.stderr):
        if settings.threshold is not None:
            classes = TrainedModel.load(run, trial=trial).classes
            settings.check(classes)
            click.echo(f"class {classes[1]} where its probability is at least {settings.threshold:g}", err=True)
        return predict_to_file(run, dataset, target, trial=trial, format_=chosen, settings=settings, reading=reading)


def _check_folder(output: str, format_: str | None) -> None:
    """Raise `UsageError` for an output that a job does not write."""
    if output == STANDARD_OUTPUT:
        raise UsageError("with -r the output is a folder: name one with -o, or predict without -r")
    chosen = format_ or named_format(output.rstrip("/")) or "parquet"
    if chosen != "parquet":
        raise UsageError(
            f"with -r the output is a folder of Parquet files, not {chosen}: predict without -r for others"
        )
