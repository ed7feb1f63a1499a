"""What the commands that write a dataset have in common: the options of the output, and the lines about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from nnlib.core.listing import listed

if TYPE_CHECKING:
    from nnlib.data.dataset import Dataset


def output_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command that writes a dataset."""
    for option in (
        click.option("--overwrite", is_flag=True, help="Replace a dataset that is there already."),
        click.option("--name", help="Name of the dataset. [default: the first source's]"),
        click.option(
            "--row-group-rows", type=click.IntRange(1, 10**9), help="Rows of a row group. [default: about 4 MiB]"
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Decides what chance decides: the rows' order.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "float64", "uint8"]),
            default="auto",
            show_default=True,
            help="Stored type. auto: uint8 for pixels, float64 where float32 would merge values, else float32.",
        ),
        click.option("--shards", type=click.IntRange(1, 99_999), default=1, show_default=True, help="Files to write."),
        click.option("-o", "--output", required=True, metavar="URI", help="Where the dataset goes: a directory."),
    ):
        command = option(command)
    return command


def print_summary(dataset: Dataset) -> None:
    """Describe a new dataset in a few lines on standard error."""
    shape = " x ".join(str(side) for side in dataset.shape)
    values = "" if dataset.x_scale == 1.0 and dataset.x_offset == 0.0 else f", value = stored * {dataset.x_scale:.6g}"
    values += f" + {dataset.x_offset:g}" if dataset.x_offset else ""
    click.echo(f"{dataset.address}: {dataset.rows:,} rows in {len(dataset.shards)} shards", err=True)
    click.echo(f"  features  {dataset.features} ({shape}), {dataset.x_dtype}{values}", err=True)
    if dataset.classes:
        shown = listed(dataset.classes, 12)
        click.echo(f"  task      classification, {len(dataset.classes)} classes: {shown}", err=True)
    else:
        click.echo(f"  task      {dataset.task}", err=True)
    if text := dataset.text:
        click.echo(f"  tokens    {text.length:,} a row, of a vocabulary of {text.vocabulary:,}", err=True)
    if dataset.columns:
        kept = ", ".join(f"{name} ({kind})" for name, kind in dataset.columns.items())
        click.echo(f"  kept      {kept}", err=True)
