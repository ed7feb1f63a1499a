"""Arrow's numbers as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

READ_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What reading a Parquet file raises that is damaged, or made to look so."""


def as_numpy(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column of integers or floats without nulls, shape (n,), not copied if it is in one piece; read only.

    Arrow's own ``to_numpy`` imports pandas, if that is installed: a quarter of a second at the start of every task.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.from_dlpack(column)
