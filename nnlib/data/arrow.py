"""Arrow columns as numpy arrays, and the errors of reading Parquet."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

READ_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)
"""The errors that reading a damaged Parquet file may raise."""


def as_numpy(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column of integers or floats without nulls, shape (n,), read-only; not copied if it is in one piece.

    Arrow's ``to_numpy`` would import pandas, if that is installed: a quarter of a second at the start of every task.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.from_dlpack(column)
