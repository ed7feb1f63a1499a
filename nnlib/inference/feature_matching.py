"""What the features of a dataset are to a model that was trained on another one: found by name, not by position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.errors import DataError
from nnlib.core.notes import note
from nnlib.data.dataset import Dataset
from nnlib.data.encoding import UNKNOWN_CATEGORY
from nnlib.data.importing.column_matching import lacks_error, say_nothing

_NOWHERE = -1


@dataclass(frozen=True)
class FeatureMatching:
    """Turns stored features of a dataset into those of a model.

    ``order``: for each feature of the model its position in the dataset, or -1 for a category that the dataset does not
    have; () where the features are the same. ``unknown``: categorical column -> position -> category, for those that
    the model does not know. ``refuses_unknown``: whether rows with such a category are errors. ``dataset``: its
    address, for errors.
    """

    order: tuple[int, ...] = ()
    unknown: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    refuses_unknown: bool = True
    dataset: str = ""

    @classmethod
    def of(cls, trained_on: Dataset, dataset: Dataset) -> FeatureMatching:
        """Match the features of a dataset to those of the dataset of a model.

        Names decide. Where one of the two has none (one vector of numbers, or names that only count the columns), the
        features are taken in order, and their number must fit. Raises `DataError` for a dataset without some of the
        features, and for one that stores numbers otherwise than the model reads them.
        """
        _check_storage(trained_on, dataset)
        wanted, there = trained_on.encoding.feature_names, dataset.encoding.feature_names
        if wanted == there:
            return cls()
        places = {name: place for place, name in enumerate(there)}
        columns = {column.name for column in dataset.encoding.columns if column.kind == "categorical"}
        optional = {
            name
            for column in trained_on.encoding.columns
            if column.kind == "categorical" and column.name in columns
            for name in column.feature_names
        }
        missing = [name for name in wanted if name not in places and name not in optional]
        if not missing:
            order = tuple(places.get(name, _NOWHERE) for name in wanted)
            refuses = trained_on.encoding.unknown_category == "error"
            return cls(order, _unknown(trained_on, dataset), refuses, dataset.address)
        if not (_has_no_names(dataset, wanted) or _has_no_names(trained_on, there)):
            raise lacks_error(None, missing, there, dataset=dataset.address)
        if len(there) != len(wanted):
            raise _count_error(trained_on, dataset)
        if not (dataset.encoding.is_vector or trained_on.encoding.is_vector):
            note(f"{dataset.address}: its columns are taken by position, for no names say which they are")
        return cls()

    def apply(self, x: Array, row: Array) -> tuple[Array, Counter[str]]:
        """Return the model's features, shape (n, features), and how many rows have an unknown category, by column.

        ``x``: the dataset's features as stored. ``row``: ids, for errors. Raises `DataError` for unknown categories.
        """
        unknown: Counter[str] = Counter()
        if not self.order:
            return x, unknown
        for column, places in self.unknown.items():
            rows = np.flatnonzero((x[:, list(places)] != 0).any(axis=1))
            if len(rows) and self.refuses_unknown:
                name = next(name for place, name in places.items() if x[rows[0], place] != 0)
                raise DataError(
                    f"{name!r} is none of the categories that the model knows",
                    dataset=self.dataset,
                    row=int(row[rows[0]]),
                    column=column,
                    hint=UNKNOWN_CATEGORY,
                )
            unknown[column] += len(rows)
        moved = x[:, list(self.order)]
        moved[:, np.array(self.order) == _NOWHERE] = 0
        return moved, +unknown


def _check_storage(trained_on: Dataset, dataset: Dataset) -> None:
    pixels = {dataset.x_dtype, trained_on.x_dtype} & {"uint8"}
    if dataset.x_dtype != trained_on.x_dtype and pixels:  # of float32 and float64 one becomes the other
        raise _count_error(trained_on, dataset)
    scales = [(each.x_scale, each.x_offset) for each in (dataset, trained_on)]
    if scales[0] != scales[1]:
        raise DataError(
            f"its features are stored * {scales[0][0]:g} + {scales[0][1]:g}, those of the model's dataset stored * "
            f"{scales[1][0]:g} + {scales[1][1]:g}",
            dataset=dataset.address,
        )


def _count_error(trained_on: Dataset, dataset: Dataset) -> DataError:
    return DataError(
        f"has {dataset.features} {dataset.x_dtype} features, the model wants {trained_on.features} "
        f"{trained_on.x_dtype}",
        dataset=dataset.address,
    )


def _has_no_names(dataset: Dataset, others: list[str]) -> bool:
    columns = dataset.encoding.columns
    return dataset.encoding.is_vector or say_nothing([column.name for column in columns], others)


def _unknown(trained_on: Dataset, dataset: Dataset) -> dict[str, dict[int, str]]:
    known = {column.name: set(column.categories) for column in trained_on.encoding.columns if column.categories}
    unknown: dict[str, dict[int, str]] = {}
    start = 0
    for column in dataset.encoding.columns:
        if column.kind == "categorical" and column.name in known:
            names = enumerate(column.categories, start)
            if places := {place: name for place, name in names if name not in known[column.name]}:
                unknown[column.name] = places
        start += column.width
    return unknown
