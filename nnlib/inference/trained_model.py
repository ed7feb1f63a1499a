"""Use a trained model: from Python (`TrainedModel`), or over a whole dataset into a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from nnlib.core.arrays import Array
from nnlib.core.errors import DataError, DivergedError, UsageError
from nnlib.core.layout import ModelState
from nnlib.data.dataset import MANIFEST, Dataset
from nnlib.data.feature_converter import Converter
from nnlib.data.importing.raw_rows import read_raw_rows
from nnlib.data.shard_cache import ShardCache
from nnlib.data.shard_reader import ShardReader
from nnlib.run.directory import RunDirectory
from nnlib.run.score_summary import ScoreSummary
from nnlib.run.spec import JobSpec, Trial
from nnlib.storage import file_at, storage
from nnlib.training.scores import new_score

COUNTS = ("rows", "confusion", "calibration")
"""Parts of a score's summary that are tables, not numbers."""

CHUNK_ROWS = 1024
"""Rows predicted at once. BLAS rounds a row's last bit by how many stand beside it, so a row predicted alone may differ
there from the same row in a file."""


@dataclass(frozen=True)
class TrainedModel:
    """One trial's kept model of a run, with the feature scaling and the class names it was trained with."""

    spec: JobSpec
    trial: Trial
    weights: Array
    buffers: tuple[Array, ...] = ()

    @property
    def state(self) -> ModelState:
        """The weights and buffers."""
        return ModelState(self.weights, self.buffers)

    @classmethod
    def load(cls, run: str, *, trial: int = 0) -> TrainedModel:
        """The final model of a run, or of its newest round if it is not finished.

        Raises `UsageError` if there is no run or no such trial.
        """
        directory = RunDirectory.open(run)
        spec = directory.spec()
        if not 0 <= trial < len(spec.trials):
            raise UsageError(f"the run has trials 0 to {len(spec.trials) - 1}, not {trial}", run=directory.address)
        chosen = spec.trials[trial]
        if directory.final() is not None:
            state = directory.final_models(spec)[trial]
        else:
            store = directory.rounds(spec)
            committed = store.rounds()
            if not committed:
                raise UsageError("this run has no model yet", run=directory.address)
            state = store.load(committed[-1]).trials[trial].model
        return cls(spec, chosen, *state)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of `predict_proba`'s columns; () for regression."""
        return self.spec.dataset.classes

    @property
    def features(self) -> int:
        return self.spec.dataset.features

    def predict(self, X: npt.ArrayLike) -> Array:
        """Predicted classes, shape (n,): integers if every class name is one, else text. Values for regression.

        ``X`` (n, features): feature values as the model was trained on them; an integer array for a dataset that
        stores small integers (`x_dtype` uint8) is taken as stored, so 0-255 pixels need no dividing. Raises `DataError`
        for another shape and for what is not a finite number.
        """
        outputs = self._outputs(X)
        if not self.classes:
            return outputs[:, 0].astype(np.float64)
        guess: Array = np.take(class_labels(self.classes), np.argmax(outputs, axis=1))
        return guess

    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """Class probabilities, shape (n, classes). With independent sigmoids a row need not sum to 1."""
        if not self.classes:
            raise UsageError("a regression model has no class probabilities: use predict")
        return self._outputs(X)

    def _outputs(self, X: npt.ArrayLike) -> Array:
        x = np.asarray(X)
        if x.ndim != 2 or x.shape[1] != self.features:
            raise DataError(f"X has shape {x.shape}, expected (rows, {self.features})")
        if x.dtype.kind not in "biuf":
            raise DataError(f"X has dtype {x.dtype}, expected numbers")
        if not np.isfinite(x).all():
            row, feature = (int(place[0]) for place in np.nonzero(~np.isfinite(x)))
            raise DataError(f"feature {feature} is {x[row, feature]}", row=row)
        stored = self.spec.dataset.x_dtype == "uint8" and np.issubdtype(x.dtype, np.integer)
        return np.concatenate(
            [np.empty((0, max(len(self.classes), 1)), self.weights.dtype), *self.outputs(x, stored=stored)]
        )

    def outputs(self, x: Array, *, stored: bool) -> Iterator[Array]:
        """Model outputs of rows (n, features), in fixed chunks; each is a copy. ``stored``: as shards store them."""
        dataset = self.spec.dataset
        scale, offset = (dataset.x_scale, dataset.x_offset) if stored else (1.0, 0.0)
        convert = Converter(scale, offset, self.trial.scaler, self.weights.dtype)
        bound = self.spec.model(self.trial).bind(self.weights, None, CHUNK_ROWS)
        for start in range(0, len(x), CHUNK_ROWS):
            yield bound.outputs(convert(x[start : start + CHUNK_ROWS])).copy()

    def losses(self, x: Array, y: Array, *, stored: bool) -> tuple[Array, npt.NDArray[np.float64]]:
        """Outputs and per-row losses of at most `CHUNK_ROWS` rows."""
        dataset = self.spec.dataset
        scale, offset = (dataset.x_scale, dataset.x_offset) if stored else (1.0, 0.0)
        convert = Converter(scale, offset, self.trial.scaler, self.weights.dtype)
        outputs, losses = self.spec.model(self.trial).bind(self.weights, None, len(x)).score(convert(x), y)
        return outputs.copy(), losses


def class_labels(classes: tuple[str, ...]) -> Array:
    """Class names as an array: of integers if every name is one."""
    if all(name.removeprefix("-").isdecimal() and str(int(name)) == name for name in classes):
        return np.array([int(name) for name in classes])
    return np.array(classes)


@dataclass(frozen=True)
class Rows:
    """Rows to predict: ids (n,), features as shards store them (n, features), targets (n,) or None."""

    row: Array
    x: Array
    y: Array | None


class PredictionWriter:
    """Writes rows' predictions into a Parquet file, and scores those that have a target. Use as a context manager."""

    def __init__(self, model: TrainedModel, stream: BinaryIO) -> None:
        dataset = model.spec.dataset
        self._model, self._schema = model, _schema(model)
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
        """Predict rows in chunks of `CHUNK_ROWS`. Raises `DivergedError` where the model gives no finite values."""
        for start in range(0, len(rows.x), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            x = rows.x[part]
            if rows.y is None:
                (outputs,) = self._model.outputs(x, stored=True)
            else:
                outputs, losses = self._model.losses(x, rows.y[part], stored=True)
                self.score.add(outputs, losses, rows.y[part])
            self._parquet.write_table(_table(self._model, self._schema, rows.row[part], outputs))
            self.rows += len(x)

    def note(self, name: str, text: str) -> None:
        """Keep a text in the file's metadata."""
        self._parquet.add_key_value_metadata({name: text})


def predict_to_parquet(run: str, source: str, output: str, *, trial: int = 0) -> dict[str, Any]:
    """Predict every row of a dataset, Parquet or CSV file into one Parquet file.

    Columns: ``row`` (position in the source), for classes ``class``, ``probability`` and ``probabilities`` (in the
    order of the file metadata's ``classes``), else ``prediction``. Returns rows, output and, where the source has
    labels, the score. Nothing is left at ``output`` if it fails.
    """
    model = TrainedModel.load(run, trial=trial)
    place, name = file_at(output)
    with place.writing(name) as stream, PredictionWriter(model, stream) as writer:
        for chunk in _source(model, source):
            writer.add(chunk)
        if writer.rows == 0:
            raise DataError("there are no rows to predict", source=source)
    result: dict[str, Any] = {"rows": writer.rows, "output": f"{place.root}/{name}", "trial": trial}
    return result | score_facts(writer.score.summary())


def score_facts(summary: ScoreSummary) -> dict[str, Any]:
    """A score's numbers as a result names them; nothing where no row had a target."""
    if not summary.rows:
        return {}
    numbers = {f"test_{key}": value for key, value in summary.to_json().items() if key not in COUNTS}
    return {**numbers, "labelled_rows": summary.rows}


def _source(model: TrainedModel, source: str) -> Iterator[Rows]:
    """The rows of a dataset directory, or of a raw file read as the model's own dataset was imported."""
    if not storage(source).exists(MANIFEST):
        for raw in read_raw_rows(source, model.spec.dataset.encoding):
            yield Rows(np.arange(raw.row, raw.row + len(raw.x)), raw.stored, raw.y)
        return
    dataset = Dataset.open(source)
    classes = known_classes(model, dataset)
    for shard in range(len(dataset.shards)):
        yield from shard_rows(dataset, shard, classes)


def known_classes(model: TrainedModel, dataset: Dataset) -> Array:
    """The model's class index of each class of a dataset, shape (classes,). Raises `DataError` for a dataset that the
    model cannot read, and for classes it does not know."""
    own = model.spec.dataset
    if dataset.features != own.features or dataset.x_dtype != own.x_dtype or dataset.task != own.task:
        raise DataError(
            f"has {dataset.features} {dataset.x_dtype} features for {dataset.task}, the model wants {own.features} "
            f"{own.x_dtype} for {own.task}",
            dataset=dataset.address,
        )
    index = {name: number for number, name in enumerate(own.classes)}
    unknown = [name for name in dataset.classes if name not in index]
    if unknown:
        raise DataError(f"has classes the model does not know: {', '.join(unknown[:5])}", dataset=dataset.address)
    return np.array([index[name] for name in dataset.classes], np.int64)


def shard_rows(dataset: Dataset, shard: int, classes: Array, cache: ShardCache | None = None) -> Iterator[Rows]:
    """A shard's rows, a row group at a time; ``classes`` as `known_classes` gives them."""
    with ShardReader(dataset, shard, cache=cache) as reader:
        for number in range(dataset.shards[shard].row_groups):
            group = reader.row_group(number)
            yield Rows(group.row, group.x, classes[group.y] if len(classes) else group.y)


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
        raise DivergedError("the model gives values that are not finite")
    if not model.classes:
        return pa.table([pa.array(row, pa.int64()), pa.array(outputs[:, 0].astype(np.float64))], schema=schema)
    guess = np.argmax(outputs, axis=1)
    names = pa.array(model.classes).take(pa.array(guess))
    best = np.take_along_axis(outputs, guess[:, None], axis=1)[:, 0]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(outputs.reshape(-1)), outputs.shape[1])
    return pa.table([pa.array(row, pa.int64()), names, pa.array(best), lists], schema=schema)
