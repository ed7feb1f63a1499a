"""The labels of an import's rows: how often each occurs, what kind of learning they fit, and the classes they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nnlib.core.errors import DataError, UsageError
from nnlib.data.columns import RowOrigin, distinct_values, is_number
from nnlib.data.dataset import LearningTask
from nnlib.data.spelling import UNKNOWN, NameIndex, drop_zeros, is_whole, sort_names, spell, unify_names

MOST_CLASSES = 65_536
MOST_AUTO_CLASSES = 1_000
"""Whole-number labels with more distinct values than this are taken as a numeric target."""


FEW_CLASSES, FEW_ROWS, FEW_SHARE = 10, 10, 0.1
"""Whole numbers are doubtful classes if there are more than `FEW_CLASSES`, and more than `FEW_SHARE` of them have fewer
than `FEW_ROWS` rows: then they may be a numeric target. Ten digits never are, nor classes of ten rows or more."""


class LabelCounts:
    """Counts the distinct labels of column ``name``, for as long as they may be classes.

    ``file`` stands in error messages. Once there are more than `MOST_CLASSES` distinct labels, ``too_many`` is set and
    counting ends.
    """

    def __init__(self, name: str, file: str) -> None:
        self.name = name
        self.file = file
        self.counts: Counter[str] = Counter()
        self.too_many = False

    def add(self, labels: pa.Array, origin: RowOrigin) -> None:
        """Count the labels of some rows. Raises `DataError` for the first that is missing."""
        missing = labels.is_null(nan_is_null=True)
        if pc.any(missing).as_py():
            row = int(np.asarray(missing).argmax())
            raise DataError(
                "the label is missing",
                hint="leave out the row; if NA or None is the name of a class, import with --null-values none",
                file=origin.file,
                row=origin.row + row + 1,
                column=self.name,
            )
        if not self.too_many:
            distinct = pc.value_counts(labels)
            for value, rows in zip(distinct_values(distinct.field("values")), distinct.field("counts"), strict=True):
                self.counts[spell(value)] += rows.as_py()
            self.too_many = len(self.counts) > MOST_CLASSES

    def merge(self, other: LabelCounts) -> None:
        """Add the counts of later rows."""
        self.counts.update(other.counts)
        self.too_many = self.too_many or other.too_many or len(self.counts) > MOST_CLASSES

    def infer_task(self, requested: Literal["auto", "classification", "regression", "language"]) -> LearningTask:
        """Return what can be learned from the labels. Raises `DataError` if that is not what is ``requested``."""
        if requested == "language":
            return requested
        text = next((name for name in self.counts if not is_number(name)), None)
        whole = self._are_whole()
        task = requested
        if task == "auto":
            few = whole and len(self.names) <= MOST_AUTO_CLASSES
            task = "classification" if text is not None or few else "regression"
        if task == "classification" and self.too_many:
            raise DataError(
                f"has more than {MOST_CLASSES} distinct labels",
                hint="is it the right --label column? For a numeric target use --task regression",
                file=self.file,
                column=self.name,
            )
        if task == "regression" and text is not None:
            raise DataError(f"a numeric target is wanted, found {text!r}", file=self.file, column=self.name)
        return task

    def doubt_of(self, task: LearningTask) -> str | None:
        """Return a sentence that says why ``task``, which nobody asked for, may be the wrong one; None if nothing does.

        Whole numbers may be classes or a numeric target, also where they are written as 1.0.
        """
        if not self._are_whole():
            return None
        names = self.names
        if task == "classification":
            rare = sum(rows < FEW_ROWS for rows in names.values())
            if len(names) <= FEW_CLASSES or rare <= FEW_SHARE * len(names):
                return None
            return (
                f"label {self.name!r}: its {len(names):,} whole numbers in {sum(names.values()):,} rows are taken as "
                f"classes, {rare:,} of them with fewer than {FEW_ROWS} rows; if they are a numeric target, import with "
                "--task regression, and if they are classes, with --task classification"
            )
        if self.too_many or sum(names.values()) < FEW_ROWS * len(names):
            return None
        return (
            f"label {self.name!r}: its {len(names):,} whole numbers are taken as a numeric target, because they are "
            f"more than {MOST_AUTO_CLASSES:,}; if they are classes, import with --task classification"
        )

    def _are_whole(self) -> bool:
        return all(map(is_whole, self.names))

    @property
    def names(self) -> dict[str, int]:
        """The rows of each label, by its name: its one spelling (`nnlib.data.spelling`)."""
        return unify_names(self.counts)

    def rename(self, label_map: Mapping[str, str]) -> dict[str, str]:
        """Return ``label_map`` (old name -> new name), each old name as it is in `names`.

        So is a new name, where it is the same whole number as another label. Raises `UsageError` for a label that does
        not occur.
        """
        names = list(self.names)
        index = NameIndex({name: position for position, name in enumerate(names)})
        renamed = {}
        for old, new in label_map.items():
            position = index.find(old)
            if position == UNKNOWN:
                known = ", ".join(sort_names(names)[:20])
                raise UsageError(f"--map-label: there is no label {old!r}; labels: {known}")
            alike = [name for name in names if is_whole(name) and drop_zeros(name) == drop_zeros(spell(new))]
            taken = len(alike) == 1 and alike != [names[position]]
            renamed[names[position]] = alike[0] if taken else new
        return renamed

    def classes(self, label_map: Mapping[str, str], declared: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the class names in index order.

        ``label_map`` renames labels (the result of `rename`). ``declared`` are all classes in order, or none to take
        those that occur. Raises `DataError` for a class that is not declared and for fewer than two classes.
        """
        classes = sort_names(label_map.get(name, name) for name in self.names)
        if declared:
            index = NameIndex({name: position for position, name in enumerate(declared)})
            unknown = [name for name in classes if index.find(name) == UNKNOWN]
            if unknown:
                raise DataError(
                    f"label {unknown[0]!r} is none of the {len(declared)} classes declared",
                    file=self.file,
                    column=self.name,
                )
            classes = tuple(declared)
        if len(classes) < 2:
            raise DataError(
                f"all rows have the same label {classes[0]!r}: nothing can be learned", file=self.file, column=self.name
            )
        return classes
