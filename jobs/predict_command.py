"""``nnjobs predict``."""

from __future__ import annotations

import contextlib
import sys

import click

from jobs.messages import print_json
from jobs.terminal import score_text, shown_path


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run")
@click.argument("dataset")
@click.option("-o", "--output", required=True, metavar="URI", help="The Parquet file to write.")
@click.option("--trial", type=click.IntRange(min=0), default=0, show_default=True, help="Which of the run's models.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as the last line of standard output.")
def predict(run: str, dataset: str, output: str, trial: int, as_json: bool) -> None:
    """Apply the model of RUN to DATASET: a dataset, a Parquet or a CSV file.

    Writes a Parquet file with the predicted class and the probabilities (for regression the predicted value) of every
    row, and prints the score if the data has labels.
    """
    from nnlib.inference import predict_to_parquet  # imported now: --help need not load numpy and pyarrow

    with contextlib.redirect_stdout(sys.stderr):
        result = predict_to_parquet(run, dataset, output, trial=trial)
    score = score_text(result).removeprefix("test ")  # the rows may be those of the training
    rows = f"{result['rows']:,} rows" if "rows" in result else "predictions"
    click.echo(f"{rows} in {shown_path(output)}{f', {score}' if score else ''}", err=True)
    if as_json:
        print_json(result)
