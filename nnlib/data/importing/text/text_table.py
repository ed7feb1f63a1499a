"""A table with text as a table with rows of tokens, so that an import sees numbers.

The package `tokenizers` computes a batch of documents in a thread, while the batch before it becomes rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.errors import DataError, UsageError
from nnlib.core.listing import listed
from nnlib.data.columns import Column, Columns, RowOrigin, to_plain_array
from nnlib.data.importing.formats.table import Role, Table, count_rows
from nnlib.data.importing.text.blocks import Block, BlockPacker, Document, key_of
from nnlib.data.importing.text.template import Span, Template
from nnlib.data.importing.text.text_options import DOCUMENT, TextOptions
from nnlib.data.importing.text.tokenizer import tokenizer_of
from nnlib.data.token_rows import join_rows

BLOCKS, COUNTED = "blocks", "counted"
"""The columns of a table of blocks besides `DOCUMENT`: the rows of tokens, and how many tokens of each count."""

BATCH_CHARACTERS = 1 << 20
BATCH_DOCUMENTS = 4096
"""What is tokenized at a time."""


@dataclass(frozen=True)
class _Text:
    """A document before it is tokenized: where it stands, its text, where it counts (None: all of it), what it
    keeps."""

    origin: RowOrigin
    text: str
    spans: list[Span] | None
    kept: tuple[object, ...] = ()


def with_tokens(table: Table, options: TextOptions | None) -> Table:
    """Return the table with its text as rows of tokens; without options the table itself.

    Raises `UsageError` for columns that are not there. Reading raises `DataError`, naming file and row, for a text that
    is missing or empty.
    """
    if options is None or not table.columns:
        return table
    template = Template.parse(options.template)
    odd = [name for name in (*template.columns, *options.keep) if name not in table.columns]
    if odd:
        shown = listed(table.columns, 20)
        raise UsageError(f"there is no column {odd[0]!r} for the text; columns: {shown}", file=table.file)
    strange = [name for name in options.counted if name not in template.columns]
    if strange:
        raise UsageError(f"--loss {strange[0]}: it is no column of the template {options.template!r}")
    return _text_rows(table, template, options) if options.kind == "text" else _block_rows(table, template, options)


def _block_rows(table: Table, template: Template, options: TextOptions) -> Table:
    """Return a table of the blocks of the table's documents."""

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        blocks = _blocks(_texts(table, template, options), options)
        while some := list(islice(blocks, max(16, (1 << 20) // options.length))):
            columns = _columns(some, options)
            yield {name: columns[name] for name in roles}

    return replace(
        table,
        columns=(BLOCKS, COUNTED, DOCUMENT, *options.keep),
        chunks=chunks,
        shapes={BLOCKS: (options.width,)},
        types={BLOCKS: options.dtype},
        label=COUNTED,
        features=(BLOCKS,),
        extra=(DOCUMENT, *options.keep),
        rows=0 if table.rows == 0 else None,
        index=(),
        key=(),
    )


def _text_rows(table: Table, template: Template, options: TextOptions) -> Table:
    """Return the table with the column of text as vectors: a row for every text."""
    (column,) = template.columns

    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        rest = {name: role for name, role in roles.items() if name != column}
        if column not in roles:
            yield from table.chunks(roles)
            return
        start = 0
        for chunk in table.chunks({**rest, column: "text"}):
            origin = RowOrigin(table.file, start)
            tokens = _whole_texts(_strings(chunk[column], column, origin), origin, column, options)
            yield {name: tokens if name == column else chunk[name] for name in roles}
            start += count_rows(chunk)

    return replace(
        table,
        chunks=chunks,
        shapes={**table.shapes, column: (options.width,)},
        types={**table.types, column: options.dtype},
        features=(column,),
    )


def _whole_texts(texts: Sequence[str | None], origin: RowOrigin, column: str, options: TextOptions) -> npt.NDArray[Any]:
    """Return texts as rows of tokens, cut at the length, with the tokens that the tokenizer puts around a text."""
    tokenizer = tokenizer_of(options.tokenizer)
    tokenizer.enable_truncation(options.length)
    for row, text in enumerate(texts):
        if text is None or not text.strip():
            raise _empty(origin, row, column, "fill it in, or leave out the row")
    encoded = tokenizer.encode_batch_fast(list(texts))
    tokens = np.full((len(texts), options.length), options.pad, options.dtype)
    mask = np.zeros(tokens.shape, np.bool_)
    for row, each in enumerate(encoded):
        ids = each.ids
        if not ids:
            raise _empty(origin, row, column, "the tokenizer knows nothing of it")
        tokens[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    return join_rows(tokens, mask)


def document_texts(table: Table, template: Template) -> Iterator[str]:
    """Yield the texts of a table's documents, empty ones as they are: what a tokenizer learns from."""
    for origin, values in _values(table, template.columns):
        yield template.fill(_present(values, origin))


def _texts(table: Table, template: Template, options: TextOptions) -> Iterator[_Text]:
    names = dict.fromkeys([*template.columns, *options.keep])
    for origin, values in _values(table, tuple(names)):
        present = _present({name: values[name] for name in template.columns}, origin)
        spans = template.spans(present, options.counted) if options.counted else None
        kept = tuple(values[name] for name in options.keep)
        yield _Text(origin, template.fill(present), spans, kept)


def _values(table: Table, names: Sequence[str]) -> Iterator[tuple[RowOrigin, dict[str, str | None]]]:
    """Yield where a row stands and its values as they are written, row by row."""
    row = 0
    for chunk in table.chunks(dict.fromkeys(names, "text")):
        origin = RowOrigin(table.file, row)
        columns = [_strings(chunk[name], name, origin) for name in names]
        for values in zip(*columns, strict=True):
            yield RowOrigin(table.file, row), dict(zip(names, values, strict=True))
            row += 1


def _strings(column: Column, name: str, origin: RowOrigin) -> list[str | None]:
    values: list[str | None] = to_plain_array(column, name, origin).cast(pa.string()).to_pylist()
    return values


def _present(values: Mapping[str, str | None], origin: RowOrigin) -> dict[str, str]:
    for name, value in values.items():
        if value is None:
            raise DataError(
                "a text is missing",
                hint="fill it in or leave out the row; --null-values says which texts mean that one is missing",
                file=origin.file,
                row=origin.row + 1,
                column=name,
            )
    return {name: value or "" for name, value in values.items()}


def _blocks(texts: Iterator[_Text], options: TextOptions) -> Iterator[Block]:
    packer = BlockPacker(options.length, options.pad, pack=options.pack)
    for batch, encoded in _tokenized(_batches(texts), options):
        for text, tokens in zip(batch, encoded, strict=True):
            document = _document(text, tokens, options)
            if document is not None:
                yield from packer.add(document)
    yield from packer.flush()


def _document(text: _Text, encoded: Any, options: TextOptions) -> Document | None:
    ids = encoded.ids
    if not ids:
        if options.empty == "skip":
            return None
        raise _empty(text.origin, 0, None, "--empty skip leaves such documents out")
    if text.spans is None:
        counts = np.ones(len(ids), np.bool_)
    else:
        starts = np.asarray(encoded.offsets, np.int64).reshape(-1, 2)
        counts = np.zeros(len(ids), np.bool_)
        for begin, end in text.spans:
            counts |= (starts[:, 1] > begin) & (starts[:, 0] < end)
    if options.end is not None:
        ids.append(options.end)
        counts = np.append(counts, True)
    return Document(np.asarray(ids, np.int64), counts, key_of(text.text), text.kept)


def _tokenized(batches: Iterator[list[_Text]], options: TextOptions) -> Iterator[tuple[list[_Text], list[Any]]]:
    """Yield each batch with its tokens; the next batch is computed meanwhile."""
    tokenizer = tokenizer_of(options.tokenizer)
    tokenizer.no_truncation()
    encode = tokenizer.encode_batch if options.counted else tokenizer.encode_batch_fast
    with ThreadPoolExecutor(1) as pool:
        waiting: tuple[list[_Text], Any] | None = None
        for batch in batches:
            coming = pool.submit(encode, [text.text for text in batch], add_special_tokens=False)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = batch, coming
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def _batches(texts: Iterator[_Text]) -> Iterator[list[_Text]]:
    batch: list[_Text] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text.text)
        if size >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _columns(blocks: Sequence[Block], options: TextOptions) -> dict[str, Column]:
    tokens = np.stack([block.tokens for block in blocks]).astype(options.dtype)
    counts = np.stack([block.counts for block in blocks])
    kept = {name: pa.array([block.kept[index] for block in blocks]) for index, name in enumerate(options.keep)}
    return {
        BLOCKS: join_rows(tokens, counts),
        COUNTED: counts.sum(axis=1).astype(np.float64),
        DOCUMENT: pa.array([block.group for block in blocks], pa.int64()),
        **kept,
    }


def _empty(origin: RowOrigin, row: int, column: str | None, hint: str) -> DataError:
    return DataError("a text is empty", hint=hint, file=origin.file, row=origin.row + row + 1, column=column)
