"""``nnjobs data tokenize``: text as a dataset of blocks of tokens, for language models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from jobs.commands.dataset_options import output_options, print_summary
from jobs.commands.names import split_names
from jobs.commands.options import JobOptions, job_options
from jobs.commands.reading_options import reading_options
from nnlib.core.progress import progressing

if TYPE_CHECKING:
    from nnlib.config.schema import Config
    from nnlib.data.importing.read_options import ReadingChanges


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@output_options
@click.option("--tokenizer", metavar="FILE", help="Tokenizer file of Hugging Face's tokenizers, or a folder with one.")
@click.option("--train-tokenizer", "vocabulary", metavar="V", type=click.IntRange(1),
              help="Train a byte-pair tokenizer of V ids on the text first.")  # fmt: skip
@click.option("--length", type=click.IntRange(2), required=True, help="Tokens of a block.")
@click.option("--template", metavar="TEXT",
              help="Text of a row: '{problem}\\n{solution}' has two columns. [default: the column text]")  # fmt: skip
@click.option("--loss", "counted", metavar="A,B",
              help="Columns of the template whose tokens the loss counts. [default: all of the text]")  # fmt: skip
@click.option("--end", metavar="TOKEN", help="Token behind every document, or none. [default: <|endoftext|> or alike]")
@click.option("--pack/--no-pack", "pack_documents", default=True, show_default=True,
              help="Let short documents share a block.")  # fmt: skip
@click.option("--empty", type=click.Choice(["error", "skip"]), default="error", show_default=True,
              help="A document without tokens: refuse it, or leave it out.")  # fmt: skip
@click.option("--keep", metavar="A,B", help="Columns that every block of a row keeps, for split.column.")
@reading_options("--format", "--input-format")
@job_options
def tokenize(sources: tuple[str, ...], job: JobOptions, reading: ReadingChanges, **chosen: Any) -> None:
    """Turn text into a dataset of blocks of tokens, for language models.

    SOURCE is a file, a directory or a pattern: CSV, JSON Lines, Parquet and Arrow files, whose rows are documents, or
    plain text, where a file is one. With -r jobs do it; the dataset is the same.
    """
    from nnlib.config.load import parse_config
    from nnlib.data.importing.import_dataset import import_dataset
    from nnlib.data.importing.import_options import ImportOptions
    from nnlib.data.importing.read_options import ReadOptions
    from nnlib.data.importing.text.choose_options import choose_blocks, text_format

    def read(overrides: Sequence[str]) -> Config:
        return parse_config("", "", ["data.path=none", *overrides])

    runtime = job.runtime(read)
    output = chosen.pop("output")
    given = {"null_values": (), "format": text_format(sources), **reading}  # a text "NA" is a text
    texts = {
        name: chosen.pop(name) for name in ("tokenizer", "vocabulary", "length", "template", "end", "pack_documents")
    }
    counted, keep = split_names(chosen.pop("counted")), split_names(chosen.pop("keep"))
    text = choose_blocks(sources, ReadOptions(**given), counted=counted, keep=keep, empty=chosen.pop("empty"), **texts)
    options = ImportOptions(**{**chosen, **given, "text": text, "task": "language"})
    if runtime is None:
        with progressing("tokenizing", unit="blocks") as progress:
            dataset = import_dataset(sources, output, options, progress)
    else:
        from jobs.batch.import_data import import_by_jobs

        dataset = import_by_jobs(sources, output, options, runtime, partial(click.echo, err=True))
    print_summary(dataset)
