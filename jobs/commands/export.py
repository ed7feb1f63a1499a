"""``nnjobs export``."""

from __future__ import annotations

import click

from jobs.commands.options import json_option, trial_option, trust_option
from jobs.console.output import print_json
from jobs.console.training_display import shown_path
from nnlib.export import EXPORTERS
from nnlib.export import export as export_model


@click.command()
@click.argument("run")
@click.option("--format", "format_", type=click.Choice(list(EXPORTERS)), required=True, help="The format of the file.")
@click.option("-o", "--output", metavar="URI", help="The file to write. [default: RUN's name and the format's suffix]")
@trial_option
@trust_option
@json_option
def export(run: str, format_: str, output: str | None, trial: int, as_json: bool) -> None:
    """Write the model of RUN as a file for other programs, and a model card next to it.

    onnx: the whole way from feature values to the answer, for onnxruntime; npz: plain numpy arrays; safetensors: the
    same arrays for torch and others. The card (.card.md, .card.json) describes the use of the file and the scores of
    the model.
    """
    result = export_model(run, format_, output, trial=trial)
    size = f"{result['bytes']:,} bytes"
    cards = ", with its .card.md and .card.json" if result["cards"] else ""
    click.echo(f"{shown_path(result['output'])} ({size}){cards}", err=True)
    if as_json:
        print_json(result)
