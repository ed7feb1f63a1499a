"""The rows that a model is asked for in Python, in the terms of its dataset: as its shards would store them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from nnlib.core.arrays import Array
from nnlib.core.errors import DataError
from nnlib.core.notes import ignore, listening, note
from nnlib.data.dataset import Dataset
from nnlib.data.encoding import Encoding
from nnlib.data.importing.column_matching import match_columns, say_nothing
from nnlib.data.importing.formats.arrow_tables import arrow_table
from nnlib.data.importing.null_values import with_named_marks
from nnlib.data.importing.raw_rows import CHUNK_ROWS, matched_rows
from nnlib.data.importing.read_options import ReadOptions
from nnlib.inference.frames import arrow_frame
from nnlib.inference.label_matching import Remarks


class ModelInput(NamedTuple):
    """Rows of features, shape (n, features). ``is_stored``: as shards store them, not as values of the features."""

    x: Array
    is_stored: bool


def model_input(x: Any, dataset: Dataset) -> Iterator[ModelInput]:
    """Yield the rows of ``x`` for a model trained on ``dataset``, `CHUNK_ROWS` at a time.

    A table with named columns (see `nnlib.inference.frames`) is read as a file of the same content: columns are found
    by name, and encoded as the import did. An array, shape (n, features), has the features in order: their values or,
    where it holds integers and the dataset stores small integers, what the dataset stores. Raises `DataError` for what
    the dataset could not hold.
    """
    wanted = {name for column in dataset.encoding.columns for name in (column.name, *column.feature_names)}
    frame = arrow_frame(x, wanted)
    blocks = _frame_blocks(frame, dataset.encoding) if frame is not None else _array_blocks(x, dataset)
    for block in blocks:
        for start in range(0, len(block.x), CHUNK_ROWS):
            yield ModelInput(block.x[start : start + CHUNK_ROWS], block.is_stored)


def _frame_blocks(frame: pa.Table, encoding: Encoding) -> Iterator[ModelInput]:
    def read(rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from frame.select(list(columns)).to_batches(max_chunksize=rows)

    try:
        table = arrow_table("", frame.schema, frame.num_rows, read)
        is_usual = encoding.is_vector or say_nothing(table.columns, [column.name for column in encoding.columns])
        with listening(ignore) if is_usual else contextlib.nullcontext():  # no note on columns without names
            match = match_columns(table, encoding)
        marked = with_named_marks(table, encoding.reading or ReadOptions())
        remarks = Remarks()
        for raw in matched_rows(marked, replace(match, label=None)):
            remarks.categories.update(raw.unknown)
            yield ModelInput(raw.stored, True)
        for sentence in remarks.sentences(bool(encoding.classes)):
            note(sentence)
    except DataError as error:
        error.where.pop("file", None)  # there is none
        raise


def _array_blocks(x: Any, dataset: Dataset) -> Iterator[ModelInput]:
    if hasattr(x, "tocsr") and hasattr(x, "toarray"):  # a sparse matrix of scipy
        x = x.tocsr()
    elif isinstance(x, np.ma.MaskedArray):
        x = np.ma.filled(x.astype(np.float64), np.nan)
    else:
        x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != dataset.features:
        raise DataError(f"X has shape {x.shape}, expected (rows, {dataset.features})")
    if x.dtype.kind not in "biuf":
        raise DataError(f"X has dtype {x.dtype}, expected numbers")
    is_stored = dataset.x_dtype == "uint8" and x.dtype.kind in "iu"
    fill = _fill(dataset.encoding)
    for start in range(0, x.shape[0], CHUNK_ROWS):
        part = x[start : start + CHUNK_ROWS]
        part = part.toarray() if hasattr(part, "toarray") else part
        if fill is not None and part.dtype.kind == "f":
            part = np.where(np.isnan(part), fill, part)
        _check(part, start, dataset, is_stored)
        yield ModelInput(part, is_stored)


def _fill(encoding: Encoding) -> Array | None:
    """Return what replaces a missing value of each feature (NaN: nothing), shape (features,); None where nothing
    does."""
    if not any(column.fill for column in encoding.columns):
        return None
    parts = [column.fill or (np.nan,) * column.width for column in encoding.columns]
    return np.array([value for part in parts for value in part], np.float64)


def _check(x: Array, start: int, dataset: Dataset, is_stored: bool) -> None:
    """Raise `DataError` for the first value that the dataset could not hold; ``start``: the position of row 0."""
    if is_stored:
        _refuse((x < 0) | (x > 255), x, start, "the model takes whole numbers from 0 to 255")
        return
    if x.dtype.kind != "f":
        return
    _refuse(~np.isfinite(x), x, start, None)
    if dataset.x_dtype == "uint8":
        ends = dataset.x_offset, dataset.x_offset + 255 * dataset.x_scale
        low, high, width = min(ends), max(ends), abs(ends[1] - ends[0])
        hint = f"the model's values are from {low:g} to {high:g}; pixels from 0 to 255 are taken as integers"
        _refuse((x < low - width) | (x > high + width), x, start, hint)
    elif dataset.x_dtype == "float32" and x.dtype.itemsize > 4:
        _refuse(np.abs(x) > np.finfo(np.float32).max, x, start, "it does not fit float32")


def _refuse(bad: Array, x: Array, start: int, why: str | None) -> None:
    if bad.any():
        row, feature = (int(index[0]) for index in np.nonzero(bad))
        raise DataError(f"feature {feature} is {x[row, feature]}{f': {why}' if why else ''}", row=start + row)
