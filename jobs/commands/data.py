"""``nnjobs data``: import, synth, info, verify. Each is a thin call into `nnlib.data`, imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from jobs.commands.data_tokenize import tokenize
from jobs.commands.dataset_options import output_options, print_summary
from jobs.commands.names import split_names
from jobs.commands.options import JobOptions, job_options, json_option
from jobs.commands.reading_options import reading_options
from jobs.console.output import console_on, print_json
from nnlib.core.errors import MismatchError, UsageError
from nnlib.core.progress import progressing

if TYPE_CHECKING:
    from nnlib.config.schema import Config
    from nnlib.data.importing.read_options import ReadingChanges


@click.group()
def data() -> None:
    """Import, make, show and check datasets."""


data.add_command(tokenize)


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if not all(side.isdigit() and int(side) > 0 for side in sides):
        raise UsageError(f"--shape {text}: write it like 20x20 or 3x32x32")
    return tuple(int(side) for side in sides)


def _label_map(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"--map-label {pair}: write it like 10=0")
    return {old: new for old, _, new in (pair.partition("=") for pair in pairs)}


@data.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@output_options
@click.option("--label", metavar="COLUMN", help="Label column (name or number, -1 is the last), array or label file.")
@click.option(
    "--features",
    metavar="A,B,...",
    help="Feature columns or arrays; quote a name with a comma: '\"a,b\",c'. [default: all others]",
)
@click.option("--categorical", metavar="C,D", help="Feature columns to encode one-hot.")
@click.option("--keep", metavar="A,B", help="Columns to keep as they are, for split.column or split.group.")
@click.option("--nulls", type=click.Choice(["error", "mean"]), default="error", show_default=True,
              help="Missing values: refuse them, or fill in the column's mean.")  # fmt: skip
@click.option("--unknown-category", type=click.Choice(["error", "ignore"]), default="error", show_default=True,
              help="A category first seen in prediction: refuse it, or take it for none of the known.")  # fmt: skip
@click.option("--task", type=click.Choice(["auto", "classification", "regression"]), default="auto", show_default=True,
              help="What the label is. auto: by its values.")  # fmt: skip
@click.option("--by-label", is_flag=True, help="Sort rows by label into the shards, unshuffled.")
@click.option("--map-label", multiple=True, metavar="OLD=NEW", help="Rename a label (10=0); may be repeated.")
@click.option("--shape", metavar="AxB", help="Shape of a row, for images. [default: as in the source]")
@click.option("--text", metavar="COLUMN", help="Column of text that becomes tokens, by --tokenizer: the only feature.")
@click.option("--tokenizer", metavar="FILE", help="--text: a tokenizer file of Hugging Face's tokenizers.")
@click.option("--length", type=click.IntRange(2), help="--text: tokens of a row; longer texts are cut.")
@click.option("--from", "folder", metavar="FOLDER", help="fashion-mnist: where its four files are.")
@reading_options("--format", "--input-format")
@job_options
def import_command(sources: tuple[str, ...], job: JobOptions, reading: ReadingChanges, **chosen: Any) -> None:
    """Turn CSV, NumPy, MATLAB, IDX, Parquet, Arrow or svmlight files into a dataset.

    SOURCE is a file, several of one format (rows one after another), a directory of files (also in directories such as
    year=2024, which is a column), or a built-in data set: digits (5000 digits of MNIST, 20 x 20), digits28 (the same,
    28 x 28), fashion-mnist or iris. With -r jobs do it, for CSV, Parquet and Arrow files and directories of them; the
    dataset is the same.
    """
    from nnlib.config.load import parse_config
    from nnlib.data.importing.import_dataset import import_dataset
    from nnlib.data.importing.import_options import ImportOptions

    def read(overrides: Sequence[str]) -> Config:
        return parse_config("", "", ["data.path=none", *overrides])

    runtime = job.runtime(read)
    output = chosen.pop("output")
    chosen.update(reading)
    chosen["label_map"] = _label_map(chosen.pop("map_label"))
    chosen["shape"] = _shape(chosen["shape"])
    for option in ("features", "categorical", "keep"):
        names = split_names(chosen[option])
        if chosen[option] is not None and not names:
            raise UsageError(f"--{option} names no column", hint="is a variable of the shell not set?")
        chosen[option] = names
    text, tokenizer, length = (chosen.pop(option) for option in ("text", "tokenizer", "length"))
    if text is not None and tokenizer is not None and length is not None:
        from nnlib.data.importing.text.choose_options import choose_texts

        chosen["text"] = choose_texts(text, tokenizer, length)
    elif (text, tokenizer, length) != (None, None, None):
        raise UsageError("--text, --tokenizer and --length belong together: name all three")
    if runtime is None:
        with progressing("importing") as progress:
            dataset = import_dataset(sources, output, ImportOptions(**chosen), progress)
    else:
        from jobs.batch.import_data import import_by_jobs

        dataset = import_by_jobs(sources, output, ImportOptions(**chosen), runtime, partial(click.echo, err=True))
    print_summary(dataset)


@data.command()
@output_options
@click.option("--kind", type=click.Choice(["digits", "blobs"]), default="digits", show_default=True,
              help="Jittered MNIST digits, or Gaussian blobs.")  # fmt: skip
@click.option("--rows", type=click.IntRange(1, 10**12), required=True, help="Rows to make.")
@click.option(
    "--features", type=click.IntRange(1, 1 << 20), help="digits: 784 (default) or 400; blobs: any. [default: 20]"
)
@click.option("--classes", type=click.IntRange(2, 65_536), default=10, show_default=True, help="Classes to make.")
def synth(**chosen: Any) -> None:
    """Make a dataset of any size."""
    from nnlib.data.synthetic import SynthOptions, synthesize

    output = chosen.pop("output")
    with progressing("making") as progress:
        dataset = synthesize(output, SynthOptions(**chosen), progress)
    print_summary(dataset)


@data.command()
@click.argument("address", metavar="DATASET")
@json_option
def info(address: str, as_json: bool) -> None:
    """Show what a dataset holds."""
    from nnlib.data.dataset import Dataset
    from nnlib.data.dataset_check import describe

    facts = describe(Dataset.open(address))
    if as_json:
        print_json(facts)
    else:
        _tables(facts)


@data.command()
@click.argument("address", metavar="DATASET")
def verify(address: str) -> None:
    """Check a dataset, all of it: hashes, counts, labels, values and row ids."""
    from nnlib.data.dataset import Dataset
    from nnlib.data.dataset_check import verify as find_problems

    dataset = Dataset.open(address)
    problems = find_problems(dataset)
    if problems:
        first = problems[0]
        for problem in problems[1:20]:
            click.echo(str(problem), err=True)
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise MismatchError(
            first.message + more,
            hint="copy the dataset again, or import it again",
            dataset=address,
            shard=first.shard,
            row=first.row,
        )
    click.echo(f"{address}: {dataset.rows:,} rows in {len(dataset.shards)} shards are as the manifest says", err=True)


def _text_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    if "text" not in facts:
        return []
    text = facts["text"]
    return [
        ("tokens of a row", f"{text['length']:,}"),
        ("vocabulary", f"{text['vocabulary']:,}"),
        ("template", ascii(text["template"])),
    ]


def _tables(facts: dict[str, Any]) -> None:
    from rich.table import Table

    console = console_on(sys.stdout, highlight=False)
    shape = " x ".join(str(side) for side in facts["shape"])
    about = Table.grid(padding=(0, 2))
    for name, value in (
        ("name", facts["name"]),
        ("task", facts["task"]),
        ("rows", f"{facts['rows']:,}"),
        ("features", f"{facts['features']} ({shape})"),
        ("stored as", f"{facts['x_dtype']}, value = stored * {facts['x_scale']:g} + {facts['x_offset']:g}"),
        *_text_rows(facts),
        ("kept columns", ", ".join(f"{name} ({kind})" for name, kind in facts["columns"].items()) or "none"),
        ("row groups", f"{facts['row_group_rows']:,} rows"),
        ("size", f"{facts['bytes'] / 1e6:,.1f} MB"),
        ("fingerprint", facts["fingerprint"][:16]),
    ):
        about.add_row(name, str(value))
    console.print(about)
    if facts["classes"]:
        classes = Table("class", "rows", "share", "")
        most = max(facts["classes"].values())
        for name, count in list(facts["classes"].items())[:200]:
            bar = "█" * max(1 if count else 0, round(30 * count / most))
            classes.add_row(name, f"{count:,}", f"{count / facts['rows']:.1%}", bar)
        console.print(classes)
    shards = Table("shard", "rows", "row groups", "MB")
    for shard in facts["shards"][:200]:
        shards.add_row(shard["name"], f"{shard['rows']:,}", str(shard["row_groups"]), f"{shard['bytes'] / 1e6:,.2f}")
    console.print(shards)
    if len(facts["shards"]) > 200:
        console.print(f"... and {len(facts['shards']) - 200} more shards")
