"""From what a user says about text to `TextOptions`: the tokenizer is read or trained, its special tokens are found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from nnlib.core.errors import DataError, UsageError
from nnlib.core.listing import listed
from nnlib.core.notes import note
from nnlib.core.progress import progressing
from nnlib.data.importing.format_registry import format_of_name
from nnlib.data.importing.formats.plain_text import COLUMN
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.input_files import list_input_files, open_input_file, read_columns
from nnlib.data.importing.read_options import ReadOptions
from nnlib.data.importing.source_files import expand_patterns, files_within
from nnlib.data.importing.text.template import Template
from nnlib.data.importing.text.text_options import TextOptions
from nnlib.data.importing.text.text_table import document_texts
from nnlib.data.importing.text.tokenizer import (
    END_OF_TEXT,
    find_end,
    find_pad,
    pack,
    package,
    read_tokenizer,
    tokenizer_of,
    train_tokenizer,
    vocabulary_of,
)

_TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq", ".arrow", ".feather", ".ipc")
_COMPRESSED = (".gz", ".bz2", ".zst", ".xz", ".zip")


def text_format(sources: Sequence[str]) -> str | None:
    """Return the format of files whose names say that they are no tables: ``text``; else None."""
    files = [file for source in expand_patterns(sources) for file in files_within(source)]
    return None if any(_is_table(file) for file in files) else "text"


def _is_table(file: str) -> bool:
    name = file.rpartition("/")[2].lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return name.endswith(_TABLES) and format_of_name(file.rpartition("/")[2]) is not None


def choose_blocks(
    sources: Sequence[str],
    reading: ReadOptions,
    *,
    length: int,
    tokenizer: str | None = None,
    vocabulary: int | None = None,
    template: str | None = None,
    counted: tuple[str, ...] = (),
    end: str | None = None,
    pack_documents: bool = True,
    empty: Literal["error", "skip"] = "error",
    keep: tuple[str, ...] = (),
) -> TextOptions:
    """Return how the rows of files become blocks of ``length`` tokens.

    ``tokenizer``: the address of a tokenizer file; or else ``vocabulary``, the ids of one that is trained on the files
    first. ``template``: None takes the column ``text``, or the only one. ``end``: the token behind every document, as
    `nnlib.data.importing.text.tokenizer.find_end` takes it. Raises `UsageError` and `DataError` for what does not fit.
    """
    if (tokenizer is None) == (vocabulary is None):
        raise UsageError("name a tokenizer file with --tokenizer, or train one with --train-tokenizer", hint="not both")
    package()
    files, reading = list_input_files(sources, reading)
    first = read_columns(files, reading)
    text = template or _only_column(first)
    parsed = Template.parse(text)
    for name in parsed.columns:
        if name not in first.columns:
            shown = listed(first.columns, 20)
            raise UsageError(f"--template: there is no column {name!r}; columns: {shown}", file=first.file)
    if vocabulary is None:
        packed = pack(read_tokenizer(tokenizer or ""))
    else:
        packed = pack(train_tokenizer(_all_texts(files, first.reading or reading, parsed), vocabulary))
    known = tokenizer_of(packed)
    size = vocabulary_of(known)
    if vocabulary is not None and size != vocabulary:
        note(f"the text has too few pairs of bytes: the tokenizer has {size:,} ids, not {vocabulary:,}")
    end_id = find_end(known, end)
    if end_id is None and end is None:
        note(f"the tokenizer has no token such as {END_OF_TEXT}: nothing ends a document (--end TOKEN names one)")
    return TextOptions(
        "blocks",
        packed,
        size,
        length,
        text,
        counted,
        end_id,
        find_pad(known, end_id),
        pack_documents,
        empty,
        keep,
    )


def choose_texts(column: str, tokenizer: str, length: int) -> TextOptions:
    """Return how every text of ``column`` becomes a row of ``length`` tokens, by the tokenizer file at an address.

    Raises `DataError` where there is none.
    """
    packed = pack(read_tokenizer(tokenizer))
    known = tokenizer_of(packed)
    name = column.replace("{", "{{").replace("}", "}}")
    if name != column:
        raise UsageError(f"--text {column}: rename the column, it has braces")
    return TextOptions(
        "text", packed, vocabulary_of(known), length, f"{{{column}}}", pad=find_pad(known, find_end(known, None))
    )


def _only_column(table: Table) -> str:
    if COLUMN in table.columns or len(table.columns) == 1:
        return f"{{{COLUMN if COLUMN in table.columns else table.columns[0]}}}"
    raise UsageError(
        "say what the text of a row is with --template, such as '{problem}\\n{solution}'",
        hint=f"columns: {listed(table.columns, 20)}",
        file=table.file,
    )


def _all_texts(files: Sequence[str], reading: ReadOptions, template: Template) -> Iterator[str]:
    """Yield the texts of all files, in order, with progress."""
    texts = 0
    with progressing("reading for the tokenizer") as progress:
        for file in files:
            with open_input_file(file, reading) as (table, _):
                if not table.columns:
                    continue
                try:
                    for text in document_texts(table, template):
                        texts += 1
                        progress(texts)
                        yield text
                except KeyError as error:
                    raise DataError(f"has no column {error}", file=file) from None
