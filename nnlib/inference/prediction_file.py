"""Predictions of rows as one file, or on a stream."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from nnlib.core.arrays import Array
from nnlib.core.errors import DataError
from nnlib.core.notes import note
from nnlib.core.progress import progressing
from nnlib.data.importing.raw_rows import CHUNK_ROWS
from nnlib.data.importing.read_options import ReadingChanges
from nnlib.data.importing.source_files import input_addresses
from nnlib.inference.label_matching import Remarks
from nnlib.inference.prediction_formats import FORMATS, PredictionFile, choose_format, is_compressed
from nnlib.inference.prediction_rows import Rows, dataset_at, source_rows
from nnlib.inference.prediction_settings import USUAL, PredictionSettings
from nnlib.inference.prediction_table import PredictionTable
from nnlib.inference.trained_model import Predictor, TrainedModel
from nnlib.run.score_summary import ScoreSummary
from nnlib.storage import file_at
from nnlib.storage.outputs import refuse_overlap
from nnlib.training.scores import ClassificationScore, new_score

COUNTS = ("class_rows", "class_hits", "class_predicted")
"""Counts by class that a result has with very many classes."""


class PredictionWriter:
    """Writes rows' predictions into a file, and scores those whose label the model knows. Use as a context manager.

    ``remarks`` counts the others.

    Raises `UsageError` for ``settings`` that do not fit the model.
    """

    def __init__(
        self, model: TrainedModel, file: PredictionFile, settings: PredictionSettings = USUAL, *, all_rows: int = 0
    ) -> None:
        """``all_rows``: of all files that are predicted together, where that is known (`nnlib.training.scores`)."""
        dataset = model.spec.dataset
        self._table = PredictionTable(model, settings)
        self._has_threshold = settings.threshold is not None
        self._predictor = Predictor(model, stored=True)
        self._file = file
        self._schema: pa.Schema | None = None
        self.score = new_score(dataset.task, len(dataset.classes), detailed=True, rows=all_rows)
        self.remarks = Remarks()
        self.rows = 0

    @property
    def numerics(self) -> str:
        """The fingerprint of the bits that the model's learner computes here."""
        return self._predictor.numerics()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._file.close()
        else:
            self._file.abandon()

    def add(self, rows: Rows) -> None:
        """Predict rows in chunks of `CHUNK_ROWS`. Raises `DivergedError` where an output is not finite."""
        for start in range(0, len(rows.x), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            x = rows.x[part]
            if rows.y is None:
                outputs = self._predictor.outputs(x)
            else:
                y = rows.y[part]
                known = self.remarks.scorable(y)
                # All rows are computed together, for the bits of a row depend on how many are.
                outputs, losses = self._predictor.outputs_and_losses(x, np.where(known, y, 0))
                if known.all():
                    self._score(outputs, losses, y)
                elif known.any():
                    self._score(outputs[known], losses[known], y[known])
            kept = {name: values[part] for name, values in rows.kept.items()}
            self._write(self._table.make(rows.row[part], kept, outputs))
            self.rows += len(x)
        self.remarks.categories.update(rows.unknown)

    def _score(self, outputs: Array, losses: Array, y: Array) -> None:
        if self._has_threshold and isinstance(self.score, ClassificationScore):
            self.score.add(outputs, losses, y, self._table.guess(outputs))
        else:
            self.score.add(outputs, losses, y)

    def _write(self, table: pa.Table) -> None:
        if self._schema is None:
            self._schema = table.schema
        elif table.schema != self._schema:
            try:
                table = table.cast(self._schema)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
                raise DataError(f"a kept column is not of the same type in all files ({error})") from None
        self._file.write(table)


def predict_to_file(
    run: str,
    source: str,
    output: str | BinaryIO,
    *,
    trial: int = 0,
    format_: str | None = None,
    settings: PredictionSettings = USUAL,
    reading: ReadingChanges | None = None,
) -> dict[str, Any]:
    """Predict every row of a dataset, or of a file in any format that can be imported, into one file.

    Args:
        output: the file's address, or a binary stream.
        format_: a name in `FORMATS`; by default the address's suffix decides (a stream: CSV).
        reading: how to read raw files, where it is not as the import did.

    The columns are those of `nnlib.inference.prediction_table.PredictionTable`; CSV and JSON lines show the
    probabilities by class. Returns rows, output and, where the source has labels, the score. Nothing is left at an
    address if it fails; of a stream, the rows before the error are written. Raises `UsageError` where the output is
    the source or the run, or lies in them.
    """
    if isinstance(output, str):
        refuse_overlap(output, (run, *input_addresses((source,))))
    format_ = choose_format(output if isinstance(output, str) else "-", format_)
    model = TrainedModel.load(run, trial=trial)
    settings.check(model.classes)
    dataset = dataset_at(source)
    with (
        _opened(output, format_) as (stream, address),
        PredictionWriter(model, FORMATS[format_].open(stream), settings) as writer,
        progressing("predicting", None if dataset is None else dataset.rows) as advance,
    ):
        for chunk in source_rows(model, dataset or source, settings.keep, reading):
            writer.add(chunk)
            advance(writer.rows)
        if writer.rows == 0:
            raise DataError("there are no rows to predict", source=source)
    result: dict[str, Any] = {"rows": writer.rows, "output": address, "trial": trial}
    for sentence in writer.remarks.sentences(bool(model.classes)):
        note(sentence)
    return result | score_facts(writer.score.summary()) | writer.remarks.to_json()


def predict_to_parquet(run: str, source: str, output: str, *, trial: int = 0) -> dict[str, Any]:
    """Predict into a Parquet file, whatever its name. See `predict_to_file`."""
    return predict_to_file(run, source, output, trial=trial, format_="parquet")


def score_facts(summary: ScoreSummary) -> dict[str, Any]:
    """Name a score's numbers as the result of a command does; {} where no row had a target.

    ``test_approximate`` has the largest errors there can be of metrics that are not exact, by name.
    """
    if not summary.rows:
        return {}
    facts: dict[str, Any] = {f"test_{name}": value for name, value in summary.values().items()}
    facts |= {f"test_{key}": value for key, value in summary.to_json().items() if key in COUNTS}
    facts |= {"test_approximate": dict(summary.error)} if summary.error else {}
    return {**facts, "labelled_rows": summary.rows}


@contextlib.contextmanager
def _opened(output: str | BinaryIO, format_: str) -> Iterator[tuple[BinaryIO, str]]:
    """Open the output, compressed if its name says so; yield the stream and its address for people."""
    if not isinstance(output, str):
        yield output, "-"
        output.flush()
        return
    folder, name = file_at(output)
    with folder.writing(name) as stream:
        if is_compressed(output, format_):
            packed: Any = _Gzip(stream)
            yield packed, f"{folder.root}/{name}"
            packed.finish()
        else:
            yield stream, f"{folder.root}/{name}"


class _Gzip:
    """Compresses what is written; it names no file and no time, so equal rows give equal bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._packer = stream, zlib.compressobj(wbits=zlib.MAX_WBITS | 16)

    def write(self, data: bytes) -> int:
        """Write bytes."""
        self._stream.write(self._packer.compress(data))
        return len(data)

    def finish(self) -> None:
        """Write the end of the file."""
        self._stream.write(self._packer.flush())
