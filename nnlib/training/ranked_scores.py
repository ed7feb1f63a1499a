"""How well outputs rank rows, one class against the rest: ROC AUC and average precision, which add up over workers.

Up to `EXACT_VALUES` outputs are kept, and the results are exact. Of more only counts are kept, in fixed bins of the
outputs: an output is rounded to 1/2048 of its distance from 0 or from 1, whichever is nearer (less finely with many
classes). Rows of one bin count as ties, and the largest error that this can make is part of the result.

Which of both it is depends on the number of all rows, and both depend on the set of rows alone: workers, their number
and their order change nothing.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array, IntArray
from nnlib.core.exact_sum import exact_sum

EXACT_VALUES = 1 << 20
"""Outputs (rows by ranked classes) that are kept: 4 MiB of float32, about as much as a slice of weights."""
BINS = 1 << 20
"""Bins over all ranked classes, at most: 16 MiB of counts."""
FINEST = 11
"""Bits of an output's mantissa that a bin distinguishes, at most."""
HALF = 126
"""Exponents of float32 numbers below 1/2, as its bits have them."""


class Ranking(NamedTuple):
    """ROC AUC and average precision by ranked class, and the largest error of each there can be, by class: 0.0 where
    it is exact. None where the rows have no row of the class, or no other."""

    roc_auc: list[float | None]
    average_precision: list[float | None]
    roc_auc_error: list[float]
    average_precision_error: list[float]


@dataclass
class RankedScores:
    """The outputs of scored rows by class, or counts of them.

    ``classes``: all classes; of two the second is ranked, of more each. ``outputs`` and ``labels`` are chunks of rows,
    shapes (b, ranked classes) and (b,); ``kept`` counts these outputs. ``bins``, if rows are counted: int64, shape (2,
    ranked classes, bins), of the class and of the others.
    """

    classes: int
    outputs: list[Array] = field(default_factory=list)
    labels: list[Array] = field(default_factory=list)
    kept: int = 0
    bins: IntArray | None = None

    @property
    def ranked(self) -> range:
        """The classes that are ranked."""
        return range(1, 2) if self.classes == 2 else range(self.classes)

    def count(self) -> None:
        """Count in bins from now on, and what is kept."""
        if self.bins is None:
            self.bins = np.zeros((2, len(self.ranked), _bins(self._bits)), np.int64)
        for outputs, labels in zip(self.outputs, self.labels, strict=True):
            keys = _bin_numbers(outputs, self._bits)
            for column, label in enumerate(self.ranked):
                is_class = labels == label
                for side, rows in enumerate((is_class, ~is_class)):
                    self.bins[side, column] += np.bincount(keys[rows, column], minlength=self.bins.shape[2])
        self.outputs, self.labels, self.kept = [], [], 0

    def add(self, outputs: Array, y: Array) -> None:
        """Add rows: ``outputs`` (b, classes), all finite, and their classes ``y`` (b,). Both are copied."""
        self._keep(outputs[:, self.ranked.start : self.ranked.stop].copy(), np.array(y, np.int32))

    def _keep(self, outputs: Array, labels: Array) -> None:
        self.outputs.append(outputs)
        self.labels.append(labels)
        self.kept += outputs.size
        if self.kept > (EXACT_VALUES if self.bins is None else BINS):
            self.count()

    def merge(self, other: RankedScores) -> None:
        """Add another worker's rows."""
        if other.bins is not None:
            self.count()
            assert self.bins is not None
            self.bins += other.bins
        for outputs, labels in zip(other.outputs, other.labels, strict=True):
            self._keep(outputs, labels)

    def summary(self) -> Ranking:
        """Compute ROC AUC and average precision of each ranked class."""
        if self.bins is not None:
            self.count()
            columns = [_areas(*self.bins[:, column, ::-1], binned=True) for column in range(len(self.ranked))]
        else:
            outputs, labels = self._joined()
            columns = [_areas(*_ties(outputs[:, k], labels == label)) for k, label in enumerate(self.ranked)]
        return Ranking(*(list(values) for values in zip(*columns, strict=True)))

    def _joined(self) -> tuple[Array, Array]:
        if not self.outputs:
            return np.empty((0, len(self.ranked)), np.float32), np.empty(0, np.int32)
        return np.concatenate(self.outputs), np.concatenate(self.labels)

    @property
    def _bits(self) -> int:
        bits = FINEST
        while bits and _bins(bits) * len(self.ranked) > BINS:
            bits -= 1
        return bits

    def to_json(self) -> dict[str, Any]:
        """Return the rows or the counts as JSON-able data: compressed bytes of arrays, as text."""
        if self.bins is not None:
            self.count()
            return {"bins": _pack(self.bins.astype("<i8"))}
        outputs, labels = self._joined()
        kind = "<f4" if outputs.dtype == np.float32 else "<f8"
        return {"dtype": kind, "outputs": _pack(outputs.astype(kind)), "labels": _pack(labels.astype("<i4"))}

    @classmethod
    def from_json(cls, data: dict[str, Any], classes: int) -> RankedScores:
        """Read what `to_json` wrote. Raises `ValueError` where it is something else."""
        scores = cls(classes)
        if "bins" in data:
            scores.count()
            assert scores.bins is not None
            scores.bins += _unpack(data["bins"], "<i8").reshape(scores.bins.shape)
            return scores
        if data["dtype"] not in ("<f4", "<f8"):
            raise ValueError(f"outputs of dtype {str(data['dtype'])[:20]!r}")
        labels = _unpack(data["labels"], "<i4")
        if len(labels):
            scores._keep(_unpack(data["outputs"], data["dtype"]).reshape(len(labels), len(scores.ranked)), labels)
        return scores


def _bins(bits: int) -> int:
    return 2 * (HALF << bits) + 1


def _bin_numbers(outputs: Array, bits: int) -> IntArray:
    """The bin of each output, ascending with it: the leading bits of p below 1/2, mirrored those of 1 - p above."""
    p = np.clip(np.asarray(outputs, np.float32), np.float32(0.0), np.float32(1.0)) + np.float32(0.0)  # no -0.0
    low = p < np.float32(0.5)
    near = np.ascontiguousarray(np.where(low, p, np.float32(1.0) - p))  # 1 - p is exact there
    numbers = (near.view(np.int32) >> (23 - bits)).astype(np.int64)
    return np.where(low, numbers, _bins(bits) - 1 - numbers)


def _ties(outputs: Array, is_class: Array) -> tuple[IntArray, IntArray]:
    """Count rows of a class and others by their output, the highest first."""
    order = np.argsort(outputs)[::-1]
    ranked, hits = outputs[order], is_class[order].astype(np.int64)
    if not len(ranked):
        return hits, hits
    first = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    rows = np.diff(np.append(first, len(ranked)))
    of_class = np.add.reduceat(hits, first)
    return of_class, rows - of_class


def _areas(
    of_class: IntArray, others: IntArray, *, binned: bool = False
) -> tuple[float | None, float | None, float, float]:
    """ROC AUC and average precision of rows counted by output, the highest first; and how wrong each can be if the
    rows that are counted together are ``binned``, not equal.

    The AUC is the share of pairs (of the class, another) in which the first has the higher output; ties count half
    (Hanley and McNeil 1982), also those of a bin. The average precision is the sum over outputs of precision * growth
    of recall.
    """
    positives, negatives = int(of_class.sum()), int(others.sum())
    if not positives or not negatives:
        return None, None, 0.0, 0.0
    some = (of_class > 0) | (others > 0)
    of_class, others = of_class[some], others[some]
    above, others_above = np.cumsum(of_class) - of_class, np.cumsum(others) - others
    pairs = 2 * positives * negatives
    auc = _dot(others, 2 * above + of_class, pairs) / pairs
    precision = (above + of_class) / (above + of_class + others_above + others)
    average = exact_sum((of_class * precision).tolist()) / positives
    if not binned:
        return auc, average, 0.0, 0.0
    # Rows of a bin lie in no known order: their precision is taken in the middle of it.
    middle = above + (of_class + 1) / 2
    average = exact_sum((of_class * (middle / (middle + others_above + others / 2))).tolist()) / positives
    lowest = exact_sum((of_class * (above / np.maximum(above + others_above + others, 1))).tolist()) / positives
    total = above + of_class
    highest = exact_sum((of_class * (total / np.maximum(total + others_above, 1))).tolist()) / positives
    return auc, average, _dot(of_class, others, pairs) / pairs, max(highest - average, average - lowest)


def _dot(left: IntArray, right: IntArray, bound: int) -> int:
    """The exact sum of products, of which ``bound`` is not less."""
    if bound < 1 << 62:
        return int(np.dot(left, right))
    return sum(int(a) * int(b) for a, b in zip(left.tolist(), right.tolist(), strict=True))


def _pack(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode("ascii")


def _unpack(text: str, dtype: str) -> npt.NDArray[Any]:
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype)
    except zlib.error as error:
        raise ValueError("compressed bytes that cannot be read") from error
