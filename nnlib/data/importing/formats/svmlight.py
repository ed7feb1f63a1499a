"""Read the sparse text format of SVMlight and LIBSVM, ``label index:value index:value ...``, as a stream of dense rows.

Rules: indices count from 1, as the format says, unless an index of the input is 0 (then from 0); a feature that a row
does not name is 0; the number of features is the largest index of all files. ``qid:N`` becomes a column to keep; text
behind ``#`` is a comment. A label is what a CSV file would hold there: a number or text without blanks and commas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nnlib.core.errors import DataError
from nnlib.core.notes import note
from nnlib.data.columns import Columns
from nnlib.data.importing.compression import READ_ERRORS, open_plain
from nnlib.data.importing.formats.table import Role, Table, rows_per_chunk
from nnlib.data.importing.read_options import ReadOptions

BLOCK_BYTES = 1 << 20
"""Bytes parsed at a time; a longer row is parsed alone."""

_MOST_LINE_BYTES = 64 << 20
_LINE = re.compile(rb"(?P<label>[^ :,]+)(?: qid:(?P<qid>[0-9]+))?(?P<pairs>(?: [0-9]+:[^ :]+)*)")
_SPACE, _COLON, _NEWLINE = b" :\n"


@dataclass(frozen=True)
class _Rows:
    """Consecutive rows: their labels and query numbers (None without) as text, and their entries.

    ``row``, ``index`` and ``value`` say of each entry, sorted by row, its row (from 0), its index as it is written, and
    its value.
    """

    label: pa.Array
    qid: pa.Array | None
    row: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Extent:
    """The number of rows of a file, its smallest and largest index (None without any), and whether rows have a qid."""

    rows: int
    smallest: int | None
    largest: int | None
    has_qid: bool


def open_svmlight(files: Sequence[str], options: ReadOptions) -> list[Table]:
    """Open files, read once to see how many features they have, unless ``options.feature_count`` says it.

    Raises `DataError`, naming file and row, for rows that are not of the format.
    """
    extents = [_extent(file) for file in files]
    first = options.first_index
    if first is None:
        first = 0 if any(extent.smallest == 0 for extent in extents) else 1
        if first == 0:
            note(f"{files[0]}: indices count from 0, because there is an index 0")
    largest = max((extent.largest for extent in extents if extent.largest is not None), default=first - 1)
    width = options.feature_count or largest - first + 1
    if width < 1:
        raise DataError("no row has a feature", file=files[0])
    has_qid = any(extent.has_qid for extent in extents)
    reading = replace(options, first_index=first, feature_count=None)
    return [
        _table(file, width, first, has_qid, reading, extent.rows) for file, extent in zip(files, extents, strict=True)
    ]


def _table(file: str, width: int, first: int, has_qid: bool, reading: ReadOptions, rows: int) -> Table:
    def chunks(roles: Mapping[str, Role]) -> Iterator[Columns]:
        size = rows_per_chunk(8 * width)
        start = unknown = 0
        for block in _blocks(file):
            parsed = _parsed(file, block, start)
            unknown += int(np.count_nonzero(parsed.index - first >= width))
            for begin in range(0, len(parsed.label), size):
                end = min(begin + size, len(parsed.label))
                chunk: dict[str, Any] = {"y": parsed.label[begin:end]}
                chunk["qid"] = pa.nulls(end - begin, pa.string()) if parsed.qid is None else parsed.qid[begin:end]
                if "x" in roles:
                    chunk["x"] = _dense(file, parsed, begin, end, width, first, start)
                yield {name: chunk[name] for name in roles}
            start += len(parsed.label)
        if unknown:
            note(f"{file}: left out {unknown:,} values of features beyond the {width:,} that are known")

    extra = ("qid",) if has_qid else ()
    columns = ("x", "y", *extra)
    return Table(file, columns, chunks, {"x": (width,)}, {"x": "float64"}, "y", ("x",), extra, rows, reading)


def _dense(file: str, rows: _Rows, begin: int, end: int, width: int, first: int, start: int) -> npt.NDArray[np.float64]:
    """Return the features of the rows from ``begin`` to ``end``, shape (n, width); ``start`` rows came before all."""
    entries = slice(*np.searchsorted(rows.row, (begin, end)))
    row, column, value = rows.row[entries] - begin, rows.index[entries] - first, rows.value[entries]
    if (column < 0).any():
        at = start + begin + int(row[(column < 0).argmax()]) + 1
        raise DataError(
            f"has an index below {first}", hint=f"in this dataset, indices count from {first}", file=file, row=at
        )
    known = column < width
    if not known.all():
        row, column, value = row[known], column[known], value[known]
    place = row * width + column
    if not (np.diff(place) > 0).all():
        ordered = np.sort(place)
        twice = ordered[1:][np.diff(ordered) == 0]
        if len(twice):
            index = int(twice[0] % width) + first
            raise DataError(f"has the index {index} twice", file=file, row=start + begin + int(twice[0] // width) + 1)
    x = np.zeros((end - begin) * width)
    x[place] = value
    return x.reshape(end - begin, width)


def _extent(file: str) -> _Extent:
    rows, smallest, largest, has_qid = 0, [], [], False
    for block in _blocks(file):
        parsed = _parsed(file, block, rows)
        rows += len(parsed.label)
        has_qid = has_qid or parsed.qid is not None
        if len(parsed.index):
            smallest.append(int(parsed.index.min()))
            largest.append(int(parsed.index.max()))
    return _Extent(rows, min(smallest, default=None), max(largest, default=None), has_qid)


def _blocks(file: str) -> Iterator[bytes]:
    """Yield whole rows, each ended by a newline, with single spaces and without comments and empty lines."""
    rest = b""
    try:
        with open_plain(file) as stream:
            while data := stream.read(BLOCK_BYTES):
                rest += data
                end = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, -1)) + 1
                if end and (block := _plain(rest[:end])):
                    yield block
                rest = rest[end:]
                if len(rest) > _MOST_LINE_BYTES:
                    raise DataError(f"has a line of more than {_MOST_LINE_BYTES:,} bytes", file=file)
    except (*READ_ERRORS, pa.ArrowException) as error:
        raise DataError(f"is not readable ({error})", file=file) from None
    if block := _plain(rest + b"\n"):
        yield block


def _plain(block: bytes) -> bytes:
    block = block.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in block:
        block = block.replace(b"\r", b"\n")
    if b"#" in block:
        block = re.sub(rb"#[^\n]*", b"", block)
    if b"\t" in block:
        block = block.replace(b"\t", b" ")
    if b"  " in block:
        block = re.sub(rb" +", b" ", block)
    block = re.sub(rb" ?\n[ \n]*", b"\n", block)
    return block.lstrip(b" \n")


def _parsed(file: str, block: bytes, start: int) -> _Rows:
    """Return the rows of a block; ``start`` rows came before it. Raises `DataError` for the first that is malformed."""
    try:
        text = block.decode()
    except UnicodeDecodeError as error:
        row = start + block.count(b"\n", 0, error.start) + 1
        raise DataError("is not UTF-8", hint="is this a file of the svmlight format?", file=file, row=row) from None
    qid = None
    if b" qid:" in block:
        qids = re.findall(r"^[^ \n]+(?: qid:([0-9]+)(?=[ \n]))?", text, re.MULTILINE)
        qid = pa.array([each or None for each in qids], pa.string())
        text = re.sub(r"^([^ \n]+) qid:[0-9]+(?=[ \n])", r"\1", text, flags=re.MULTILINE)
        block = text.encode()
    counts = _pairs_by_line(block)
    if counts is None:
        raise _malformed(file, block, start)
    tokens = pc.ascii_split_whitespace(pa.scalar(text.replace(":", " ").strip())).values
    if len(tokens) != len(counts) + 2 * counts.sum():
        raise _malformed(file, block, start)
    is_label = np.zeros(len(tokens), bool)
    is_label[np.concatenate([[0], np.cumsum(1 + 2 * counts)[:-1]]).astype(np.int64)] = True
    labels, pairs = tokens.filter(pa.array(is_label)), tokens.filter(pa.array(~is_label))
    position = np.arange(len(pairs))
    try:
        index = pairs.take(pa.array(position[::2])).cast(pa.int64()).to_numpy()
        value = pairs.take(pa.array(position[1::2])).cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        raise _malformed(file, block, start) from None
    if pc.any(pc.match_substring(labels, ",")).as_py():
        raise _malformed(file, block, start)
    return _Rows(labels, qid, np.repeat(np.arange(len(counts)), counts), index, value)


def _pairs_by_line(block: bytes) -> npt.NDArray[np.int64] | None:
    """Return the number of pairs in each line; None if one is not ``label index:value index:value ...``."""
    characters = np.frombuffer(block, np.uint8)
    at = np.flatnonzero((characters == _SPACE) | (characters == _COLON) | (characters == _NEWLINE))
    kind = characters[at]
    before = np.concatenate([[_NEWLINE], kind[:-1]])
    fits = np.where(before == _SPACE, kind == _COLON, kind != _COLON)
    if not fits.all() or at[0] == 0 or (np.diff(at) == 1).any():
        return None
    lines = np.flatnonzero(kind == _NEWLINE)
    return np.diff(np.concatenate([[-1], lines])) // 2


def _malformed(file: str, block: bytes, start: int) -> DataError:
    """Return the error for the first line that is not of the format."""
    for number, line in enumerate(block.split(b"\n")[:-1]):
        match = _LINE.fullmatch(line)
        values = () if match is None else (pair.partition(b":") for pair in match["pairs"].split())
        if match is not None and all(_is_value(index, value) for index, _, value in values):
            continue
        label = line.partition(b" ")[0]
        what = f"is no row of the svmlight format: {line[:80].decode('utf-8', 'replace')!r}"
        hint = "a row is: label index:value index:value ..."
        if b":" in label:
            what, hint = "has no label", "write a number, such as 0, where it is not known"
        elif b"," in label:
            what, hint = f"has several labels: {label[:60].decode('utf-8', 'replace')}", "one label a row can be learnt"
        return DataError(what, hint=hint, file=file, row=start + number + 1)
    return DataError("is not readable in the svmlight format", file=file)


def _is_value(index: bytes, value: bytes) -> bool:
    try:
        pa.scalar(value.decode()).cast(pa.float64())
        pa.scalar(index.decode()).cast(pa.int64())
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return False
    return True
