"""What the labels of rows to predict are to a model, and which rows cannot be scored by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.arrays import Array
from nnlib.data.dataset import Dataset
from nnlib.data.encoding import Encoding
from nnlib.data.spelling import MISSING, UNKNOWN


@dataclass(frozen=True)
class LabelMatching:
    """Turns the labels of a dataset into those of a model, whose dataset has the ``encoding``.

    ``classes``: the model's label of each class of the dataset, shape (classes,), as `Encoding.find_labels` has it;
    empty for a dataset of numeric targets.
    """

    encoding: Encoding
    classes: Array

    @classmethod
    def of(cls, trained_on: Dataset, dataset: Dataset) -> LabelMatching:
        """Match the classes of a dataset to those of the dataset of a model.

        A class has the index of the name it has; one that the model's dataset lacks may be a label it has renamed.
        """
        names = pa.array(dataset.classes, pa.string())
        renaming = replace(trained_on.encoding, classes=trained_on.classes)
        classes = replace(renaming, label_map={}).find_labels(names)
        if trained_on.classes:
            classes = np.where(classes == UNKNOWN, renaming.find_labels(names), classes)
        return cls(renaming, classes)

    def labels(self, y: Array) -> Array:
        """Return the model's labels for labels that the dataset stores, shape (n,): see `Encoding.find_labels`."""
        if len(self.classes):
            return np.take(self.classes, y)
        return self.encoding.find_labels(y) if self.encoding.classes else y


@dataclass
class Remarks:
    """Counts what a person should know of predicted rows.

    ``missing`` and ``unknown``: rows that were not scored, because their label is missing or none that the model knows
    (for regression: no number). ``categories``: rows by feature column whose category the model does not know.
    """

    missing: int = 0
    unknown: int = 0
    categories: Counter[str] = field(default_factory=Counter)

    def scorable(self, y: Array) -> npt.NDArray[np.bool_]:
        """Return which labels can be scored, shape (n,), and count the others. ``y``: as of `Encoding.find_labels`."""
        if y.dtype.kind == "f":
            known = np.isfinite(y)
            self.unknown += int(np.count_nonzero(~known))
            return known
        missing = int(np.count_nonzero(y == MISSING))
        self.missing += missing
        self.unknown += int(np.count_nonzero(y < 0)) - missing
        return y >= 0

    def merge(self, other: Remarks) -> None:
        """Add the counts of other rows."""
        self.missing += other.missing
        self.unknown += other.unknown
        self.categories.update(other.categories)

    def sentences(self, has_classes: bool) -> Iterator[str]:
        """Yield a sentence for each count that is not 0."""
        if self.missing:
            yield f"{_rows(self.missing)} no label: predicted, not scored"
        if self.unknown:
            what = "a label the model does not know" if has_classes else "a target that is missing or no number"
            yield f"{_rows(self.unknown)} {what}: predicted, not scored"
        for name, rows in self.categories.items():
            yield f"column {name!r}: {_rows(rows)} a category the model does not know: taken for none of those it knows"

    def to_json(self) -> dict[str, Any]:
        """Return the counts that are not 0 as JSON values; `from_json` is the inverse."""
        counts = {
            "missing_labels": self.missing,
            "unknown_labels": self.unknown,
            "unknown_categories": dict(self.categories),
        }
        return {name: count for name, count in counts.items() if count}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Remarks:
        """Return the counts that `to_json` wrote, among other values of ``data``."""
        return cls(
            data.get("missing_labels", 0), data.get("unknown_labels", 0), Counter(data.get("unknown_categories", {}))
        )


def _rows(count: int) -> str:
    return f"{count:,} row has" if count == 1 else f"{count:,} rows have"
