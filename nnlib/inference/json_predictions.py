"""Predictions as JSON lines: an object for each row. Its ``probabilities`` are an object, too: class -> probability.

Numbers are written with as many digits as it takes to read the same number; a missing value, and a kept number that is
not finite, is null.
"""

from __future__ import annotations

import json
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from nnlib.inference.csv_predictions import spread_probabilities
from nnlib.inference.prediction_table import PROBABILITIES, schema_classes


class JsonPredictions:
    """A file of JSON lines."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, table: pa.Table) -> None:
        """Write rows, a line each."""
        classes = schema_classes(table.schema) if PROBABILITIES in table.column_names else []
        plain = [name for name in table.column_names if name != PROBABILITIES]
        spread = spread_probabilities(table)
        texts = [_texts(column) for column in spread.columns]
        parts: list[pa.Scalar | pa.Array] = [pa.scalar("{")]
        for index, name in enumerate(plain):
            parts += [pa.scalar(f"{', ' if index else ''}{_quoted(name)}: "), texts[index]]
        if classes:  # the last columns: no column of predictions stands behind them
            parts.append(pa.scalar(f', "{PROBABILITIES}": {{'))
            for index, name in enumerate(classes):
                parts += [pa.scalar(f"{', ' if index else ''}{_quoted(name)}: "), texts[len(plain) + index]]
            parts.append(pa.scalar("}"))
        lines = pc.binary_join_element_wise(*parts, pa.scalar("}\n"), pa.scalar(""))
        self._stream.write("".join(lines.to_pylist()).encode())

    def close(self) -> None:
        """Do nothing: every line is written."""

    def abandon(self) -> None:
        """Do nothing."""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """Return the values of a column as JSON."""
    values = column.combine_chunks()
    kind = values.type
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_finite(values), values, pa.scalar(None, kind))
    if pa.types.is_null(kind):
        return pa.array(["null"] * len(values))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return pc.fill_null(values.cast(pa.string()), "null")
    encoded = values.cast(pa.string()).dictionary_encode()
    quoted = pa.array([_quoted(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return pc.fill_null(quoted.take(encoded.indices), "null")
