"""``nnjobs predict``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from jobs.commands.options import JobOptions, job_options, json_option, trial_option
from jobs.commands.reading_options import reading_options
from jobs.console.output import print_json
from jobs.console.training_display import score_text, shown_path
from nnlib.core.errors import UsageError

if TYPE_CHECKING:
    from nnlib.config.schema import Config
    from nnlib.data.importing.read_options import ReadingChanges


@click.command()
@click.argument("run")
@click.argument("dataset")
@click.option("-o", "--output", required=True, metavar="URI", help="The Parquet file to write; with -r a folder.")
@trial_option
@reading_options("--input-format")
@click.option("--tasks", type=click.IntRange(min=1), help="With -r: map tasks. [default: by the shards' size]")
@job_options
@json_option
def predict(
    run: str,
    dataset: str,
    output: str,
    trial: int,
    reading: ReadingChanges,
    tasks: int | None,
    job: JobOptions,
    as_json: bool,
) -> None:
    """Apply the model of RUN to DATASET: a dataset, a Parquet or a CSV file.

    A file is read as those of the model's dataset were, unless the options say otherwise.

    Writes a Parquet file with the predicted class and the probabilities (for regression the predicted value) of every
    row, and prints the score if the data has labels. With -r a job does it, for a dataset, and writes a
    Parquet file for each of its shards; the same command adds the missing files of an incomplete folder.
    """
    # Imported now: --help need not load numpy and pyarrow.
    from nnlib.config.render import from_resolved
    from nnlib.inference.prediction_file import predict_to_parquet
    from nnlib.run.directory import CONFIG, RunDirectory

    def read(overrides: Sequence[str]) -> Config:
        directory = RunDirectory.open(run)
        text = directory.storage.read(CONFIG).decode(errors="replace")
        return from_resolved(text, f"{directory.address}/{CONFIG}", overrides)

    runtime = job.runtime(read)
    with contextlib.redirect_stdout(sys.stderr):
        if runtime is None:
            if tasks is not None:
                raise UsageError("--tasks is for a job: choose a runner for it with -r")
            result = predict_to_parquet(run, dataset, output, trial=trial, reading=reading)
        else:
            if reading:
                raise UsageError("with -r the data is a dataset, which needs no options of reading files")
            from jobs.batch.predict import predict as predict_by_job

            note = partial(click.echo, err=True)
            result = predict_by_job(run, dataset, output, runtime, trial=trial, tasks=tasks, note=note)
    score = score_text(result.get("test_accuracy"), result.get("test_r2")).removeprefix(
        "test "
    )  # the rows may be those of the training
    rows = f"{result['rows']:,} rows" if "rows" in result else "predictions"
    click.echo(f"{rows} in {shown_path(output)}{f', {score}' if score else ''}", err=True)
    if as_json:
        print_json(result)
