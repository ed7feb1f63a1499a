"""Batches of rows for training and scoring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nnlib.core.arrays import Array, IntArray
from nnlib.data.decoded_rows import aligned_matrix
from nnlib.data.feature_converter import Converter

SCORE_ROWS = 1024
"""Rows of a batch in scoring and in feature statistics. Another number would change the bits of sums."""

CHUNK_ROWS = 4096
"""Rows of a batch in training with all rows at once (cg, lbfgs). Another number would change the bits of sums."""


class Batch(NamedTuple):
    """Converted rows of a model, b of them; valid until the next batch.

    ``x``: features in the model's dtype, shape (b, features). ``y``: class indices (int64) or targets (float64), shape
    (b,). ``row``: ids, shape (b,) int64.
    """

    x: Array
    y: Array
    row: IntArray

    def parts(self, rows: int) -> Iterator[Batch]:
        """Cut the batch into batches of ``rows`` rows on the same memory; the last has what is left."""
        for start in range(0, len(self.y), rows):
            yield Batch(*(array[start : start + rows] for array in self))


class SelectedRows(NamedTuple):
    """The n rows at ``positions``, shape (n,), of ``x``, shape (m, features), with their ``y`` and ``row`` ids, shape
    (n,) each."""

    x: Array
    positions: IntArray
    y: Array
    row: IntArray


def join_batches(selected: Iterator[SelectedRows], batch_rows: int, converter: Converter | None) -> Iterator[Batch]:
    """Join rows into batches of ``batch_rows``; only the last may be smaller.

    ``converter`` converts them, None if they are converted already. All batches use the same memory.
    """
    x_out = x_in = y_out = np.zeros(0)
    row_out = np.zeros(0, np.int64)
    filled = 0
    for x, positions, y, row in selected:
        if not len(row_out):
            x_out = x_in = aligned_matrix(batch_rows, x.shape[1], x.dtype)
            if converter is not None:
                x_out = aligned_matrix(batch_rows, x.shape[1], converter.dtype)
            y_out, row_out = np.empty(batch_rows, y.dtype), np.empty(batch_rows, row.dtype)
        start, end = 0, len(positions)
        while start < end:
            stop = min(end, start + batch_rows - filled)
            upto = filled + stop - start
            # All positions are in range; "clip" keeps take from buffering its output.
            x.take(positions[start:stop], 0, x_in[filled:upto], "clip")
            y_out[filled:upto] = y[start:stop]
            row_out[filled:upto] = row[start:stop]
            start, filled = stop, upto
            if filled == batch_rows:
                yield Batch(x_in if converter is None else converter(x_in, x_out), y_out, row_out)
                filled = 0
    if filled:
        x = x_in[:filled] if converter is None else converter(x_in[:filled], x_out[:filled])
        yield Batch(x, y_out[:filled], row_out[:filled])
