"""Predictions of rows as one Parquet file."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nnlib.core.arrays import Array
from nnlib.core.errors import DataError, DivergedError
from nnlib.data.importing.read_options import ReadingChanges
from nnlib.inference.prediction_rows import Rows, source_rows
from nnlib.inference.trained_model import CHUNK_ROWS, Predictor, TrainedModel
from nnlib.run.score_summary import ScoreSummary
from nnlib.storage import file_at
from nnlib.training.scores import new_score

COUNTS = ("rows", "confusion", "calibration")
"""Parts of a score's summary that are tables, not numbers."""


class PredictionWriter:
    """Writes rows' predictions into a Parquet file, and scores those that have a target. Use as a context manager."""

    def __init__(self, model: TrainedModel, stream: BinaryIO) -> None:
        dataset = model.spec.dataset
        self._model, self._schema = model, _schema(model)
        self._predictor = Predictor(model, stored=True)
        self._parquet = pq.ParquetWriter(stream, self._schema, compression="zstd")
        self.score = new_score(dataset.task, len(dataset.classes))
        self.rows = 0

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parquet.close()

    def add(self, rows: Rows) -> None:
        """Predict rows in chunks of `CHUNK_ROWS`. Raises `DivergedError` where an output is not finite."""
        for start in range(0, len(rows.x), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            x = rows.x[part]
            if rows.y is None:
                outputs = self._predictor.outputs(x)
            else:
                outputs, losses = self._predictor.outputs_and_losses(x, rows.y[part])
                self.score.add(outputs, losses, rows.y[part])
            self._parquet.write_table(_table(self._model, self._schema, rows.row[part], outputs))
            self.rows += len(x)

    def add_metadata(self, name: str, text: str) -> None:
        """Write a text into the file's metadata."""
        self._parquet.add_key_value_metadata({name: text})


def predict_to_parquet(
    run: str, source: str, output: str, *, trial: int = 0, reading: ReadingChanges | None = None
) -> dict[str, Any]:
    """Predict every row of a dataset, Parquet or CSV file into one Parquet file.

    Columns: ``row`` (position in the source), for classes ``class``, ``probability`` and ``probabilities`` (in the
    order of the file metadata's ``classes``), else ``prediction``. Returns rows, output and, where the source has
    labels, the score. ``reading``: how to read raw files, where it is not as the import did. Nothing is left at
    ``output`` if it fails.
    """
    model = TrainedModel.load(run, trial=trial)
    folder, name = file_at(output)
    with folder.writing(name) as stream, PredictionWriter(model, stream) as writer:
        for chunk in source_rows(model, source, reading):
            writer.add(chunk)
        if writer.rows == 0:
            raise DataError("there are no rows to predict", source=source)
    result: dict[str, Any] = {"rows": writer.rows, "output": f"{folder.root}/{name}", "trial": trial}
    return result | score_facts(writer.score.summary())


def score_facts(summary: ScoreSummary) -> dict[str, Any]:
    """Name a score's numbers as the result of a command does; {} where no row had a target."""
    if not summary.rows:
        return {}
    numbers = {f"test_{key}": value for key, value in summary.to_json().items() if key not in COUNTS}
    return {**numbers, "labelled_rows": summary.rows}


def _schema(model: TrainedModel) -> pa.Schema:
    if not model.classes:
        return pa.schema([("row", pa.int64()), ("prediction", pa.float64())])
    kind = pa.float32() if model.weights.dtype == np.float32 else pa.float64()
    fields = [
        ("row", pa.int64()),
        ("class", pa.string()),
        ("probability", kind),
        ("probabilities", pa.list_(kind, len(model.classes))),
    ]
    return pa.schema(fields, metadata={"classes": json.dumps(list(model.classes))})


def _table(model: TrainedModel, schema: pa.Schema, row: Array, outputs: Array) -> pa.Table:
    if not np.isfinite(outputs).all():
        raise DivergedError("the model's outputs are not finite")
    if not model.classes:
        return pa.table([pa.array(row, pa.int64()), pa.array(outputs[:, 0].astype(np.float64))], schema=schema)
    guess = np.argmax(outputs, axis=1)
    names = pa.array(model.classes).take(pa.array(guess))
    best = np.take_along_axis(outputs, guess[:, None], axis=1)[:, 0]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(outputs.reshape(-1)), outputs.shape[1])
    return pa.table([pa.array(row, pa.int64()), names, pa.array(best), lists], schema=schema)
