"""Tables of other libraries as Arrow tables: pandas, polars, DuckDB, pyarrow, numpy's structured arrays, dictionaries.

No library is imported for it: pandas is recognized where it is loaded, others by Arrow's and Python's protocols for
tables (``__arrow_c_stream__``, ``__dataframe__``).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from nnlib.core.errors import DataError

_FAILURES = (pa.ArrowException, TypeError, ValueError, NotImplementedError)


def arrow_frame(x: Any, wanted: Collection[str]) -> pa.Table | None:
    """Return a table with named columns as an Arrow table; None for what is no such table: arrays, lists.

    ``wanted``: names of columns; a pandas index becomes a column only where one has its name. Raises `DataError` for a
    table that Arrow cannot hold, such as columns of mixed types.
    """
    try:
        return _arrow_frame(x, wanted)
    except _FAILURES as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"a {type(x).__name__} cannot be read as a table of numbers and texts: {reason}") from None


def _arrow_frame(x: Any, wanted: Collection[str]) -> pa.Table | None:
    if isinstance(x, pa.Table):
        return x
    if isinstance(x, pa.RecordBatch):
        return pa.Table.from_batches([x])
    if (pandas := sys.modules.get("pandas")) is not None and isinstance(x, pandas.DataFrame):
        return _of_pandas(x, wanted)
    if isinstance(x, np.ndarray):
        names = x.dtype.names
        return None if names is None or x.ndim != 1 else _of_columns({name: x[name] for name in names})
    if isinstance(x, Mapping):
        return _of_columns(x)
    if len(getattr(x, "shape", (0, 0))) != 2:
        return None  # a column of a table speaks the protocols, too
    if hasattr(x, "__arrow_c_stream__"):
        return pa.table(x)
    if hasattr(x, "__dataframe__"):
        from pyarrow.interchange import from_dataframe  # of tables that know no better protocol

        return from_dataframe(x)
    if hasattr(x, "collect") and hasattr(x, "collect_schema"):
        raise DataError(f"a {type(x).__name__} has no rows yet", hint="collect() it first")
    return None


def _of_pandas(frame: Any, wanted: Collection[str]) -> pa.Table:
    levels = {name if name is not None else f"__index_level_{k}__": k for k, name in enumerate(frame.index.names)}
    columns = {str(name) for name in frame.columns}
    index = {str(name): level for name, level in levels.items() if str(name) in wanted and str(name) not in columns}
    if any(hasattr(kind, "fill_value") for kind in frame.dtypes):  # sparse columns, which Arrow does not know
        dense = {name: kind.subtype for name, kind in frame.dtypes.items() if hasattr(kind, "fill_value")}
        frame = frame.astype(dense)
    with warnings.catch_warnings(action="ignore"):  # that column names are not text: numbers are no less names
        table = pa.Table.from_pandas(frame, preserve_index=False)
    for name, level in index.items():
        table = table.append_column(name, pa.array(frame.index.get_level_values(level), from_pandas=True))
    return table.replace_schema_metadata(None)


def _of_columns(columns: Mapping[Any, Any]) -> pa.Table:
    arrays = [_column(values) for values in columns.values()]
    if len({len(array) for array in arrays}) > 1:
        sizes = ", ".join(f"{name} has {len(array)}" for name, array in zip(columns, arrays, strict=True))
        raise ValueError(f"columns have different numbers of rows: {sizes}")
    return pa.Table.from_arrays(arrays, names=[str(name) for name in columns])


def _column(values: Any) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise TypeError(f"a column must be a list or an array, not {values!r:.50}")
    if not isinstance(values, np.ndarray):
        return pa.array(values, from_pandas=True)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if values.ndim <= 1:
        return pa.array(values, from_pandas=True)
    width = int(np.prod(values.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
