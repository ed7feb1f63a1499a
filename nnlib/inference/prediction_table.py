"""Predictions as Arrow tables: the columns that every format of a prediction file is made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from nnlib.core.arrays import Array
from nnlib.core.errors import DataError, DivergedError, UsageError
from nnlib.core.listing import listed
from nnlib.inference.prediction_settings import PredictionSettings
from nnlib.inference.trained_model import TrainedModel

PROBABILITIES = "probabilities"
"""The column with the probabilities of all classes, in the order of the schema's metadata ``classes``."""


def probability_name(class_: str) -> str:
    """Name the column of a class's probability, where each class has one."""
    return f"p_{class_}"


def schema_classes(schema: pa.Schema) -> list[str]:
    """Return the class names that a table of predictions has in its metadata."""
    classes: list[str] = json.loads((schema.metadata or {}).get(b"classes", b"[]"))
    return classes


class PredictionTable:
    """Makes tables of predictions.

    Columns: ``row`` (position in the source), the kept columns, then for classes ``class``, ``probability`` (of that
    class) and ``probabilities`` (of all classes, in the order of the metadata's ``classes``), or with
    ``settings.top`` ``class_1``, ``probability_1``, ``class_2`` ... instead of ``probabilities``; for regression
    ``prediction``. A kept column whose name a column of predictions has is called ``input_`` and its name.

    Raises `UsageError` for settings that do not fit the model.
    """

    def __init__(self, model: TrainedModel, settings: PredictionSettings) -> None:
        settings.check(model.classes)
        self._classes, self._settings = model.classes, settings
        self._names = pa.array(model.classes, pa.string())
        self._kind = pa.float32() if model.weights.dtype == np.float32 else pa.float64()

    def guess(self, outputs: Array) -> Array:
        """Return the index of each row's class, shape (n,), from outputs, shape (n, classes)."""
        if self._settings.threshold is not None:
            at_least: Array = outputs[:, 1].astype(np.float64) >= self._settings.threshold
            return at_least.astype(np.intp)
        best: Array = np.argmax(outputs, axis=1)
        return best

    def make(self, row: Array, kept: Mapping[str, pa.Array], outputs: Array) -> pa.Table:
        """Return the predictions of n rows.

        ``row``: positions (n,). ``kept``: columns of the input, n values each. ``outputs``: of the model, shape (n,
        outputs). Raises `DivergedError` where an output is not finite, and `DataError` for a kept column whose values
        are no texts, numbers, truth values or times.
        """
        if not np.isfinite(outputs).all():
            raise DivergedError("the model's outputs are not finite")
        predicted = self._class_columns(outputs) if self._classes else {"prediction": _numbers(outputs[:, 0])}
        columns = {"row": pa.array(row, pa.int64())}
        taken = {"row", PROBABILITIES, *predicted, *(probability_name(name) for name in self._classes)}
        for name, values in kept.items():
            columns[_free_name(name, {*taken, *columns})] = _checked(name, values)
        table = pa.table(columns | predicted)
        if self._classes:
            table = table.replace_schema_metadata({"classes": json.dumps(list(self._classes))})
        return table

    def _class_columns(self, outputs: Array) -> dict[str, pa.Array]:
        guess = self.guess(outputs)
        columns = {"class": self._names.take(pa.array(guess)), "probability": self._probability(outputs, guess)}
        if self._settings.top is None:
            flat = pa.array(outputs.reshape(-1), self._kind)
            return columns | {PROBABILITIES: pa.FixedSizeListArray.from_arrays(flat, outputs.shape[1])}
        order = np.argsort(-outputs, axis=1, kind="stable")
        for place in range(self._settings.top):
            columns[f"class_{place + 1}"] = self._names.take(pa.array(order[:, place]))
            columns[f"probability_{place + 1}"] = self._probability(outputs, order[:, place])
        return columns

    def _probability(self, outputs: Array, index: Array) -> pa.Array:
        return pa.array(np.take_along_axis(outputs, index[:, None], axis=1)[:, 0], self._kind)


def check_kept_names(names: Iterable[str], available: Iterable[str], file: str) -> None:
    """Raise `UsageError` for a name in ``names`` that is not in ``available``."""
    known = list(available)
    for name in names:
        if name not in known:
            columns = listed(known, 20) or "none"
            raise UsageError(f"--id: there is no column {name!r}; columns: {columns}", file=file)


def _numbers(values: Array) -> pa.Array:
    return pa.array(values.astype(np.float64))


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"input_{name}"
    return name


def _checked(name: str, values: pa.Array) -> pa.Array:
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _checked(name, values.dictionary_decode())
    if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        return values.cast(pa.string())
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or (
        pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind)
    ):  # fmt: skip
        raise DataError(
            f"a column of type {kind} cannot be written with predictions",
            hint="name columns of texts, numbers or times with --id",
            column=name,
        )
    return values
