"""Predictions as CSV: a header, and a column ``p_<class>`` for each class instead of a list of probabilities.

Numbers are written with as many digits as it takes to read the same number. Texts are in quotes; a missing value is an
empty field without quotes.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv

from nnlib.inference.prediction_table import PROBABILITIES, probability_name, schema_classes


class CsvPredictions:
    """A CSV file of predictions."""

    delimiter = ","

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._started = False

    def write(self, table: pa.Table) -> None:
        """Write rows, the header before the first ones."""
        text = io.BytesIO()  # not the stream: Arrow would replace its errors by others
        options = pacsv.WriteOptions(include_header=not self._started, delimiter=self.delimiter)
        pacsv.write_csv(spread_probabilities(table), text, options)
        self._stream.write(text.getvalue())
        self._started = True

    def close(self) -> None:
        """Do nothing: every row is written."""

    def abandon(self) -> None:
        """Do nothing."""


class TsvPredictions(CsvPredictions):
    """The same with tabs between the columns."""

    delimiter = "\t"


def spread_probabilities(table: pa.Table) -> pa.Table:
    """Return the table with a column for each class instead of the list of probabilities."""
    if PROBABILITIES not in table.column_names:
        return table
    classes = schema_classes(table.schema)
    place = table.column_names.index(PROBABILITIES)
    values = table.column(place).combine_chunks().flatten().to_numpy().reshape(len(table), len(classes))
    table = table.remove_column(place)
    for index, name in enumerate(classes):
        table = table.add_column(place + index, probability_name(name), pa.array(values[:, index]))
    return table
