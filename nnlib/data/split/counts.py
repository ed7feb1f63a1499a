"""Count the rows of each part, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnlib.core.arrays import IntArray
from nnlib.data.split.rule import TEST, TRAIN, VALIDATION, LabelChunks, SplitRule


@dataclass(frozen=True)
class SplitCounts:
    """The number of rows of each part in each shard, for one trial: int64, shape (shards,).

    ``train_classes`` counts the training rows of each class, shape (shards, classes); None for a numeric target.
    """

    train: IntArray
    validation: IntArray
    test: IntArray
    train_classes: IntArray | None


def count_parts(
    label_chunks: LabelChunks, rules: Sequence[SplitRule], *, shards: int, classes: int | None
) -> list[SplitCounts]:
    """Count the rows of each part for several trials, in one pass over the labels.

    ``shards`` and ``classes`` are their numbers in the dataset; ``classes`` is None for a numeric target.
    """
    parts = np.zeros((len(rules), shards, 4), np.int64)
    by_class = np.zeros((len(rules), shards, classes or 0), np.int64)
    for chunk in label_chunks():
        for index, rule in enumerate(rules):
            codes = rule.parts(chunk.row, chunk.y, chunk.extra)
            parts[index, chunk.shard] += np.bincount(codes, minlength=4)
            if classes is not None:
                labels = chunk.y[codes == TRAIN]
                by_class[index, chunk.shard] += np.bincount(labels, minlength=classes)
    return [
        SplitCounts(
            parts[index, :, TRAIN],
            parts[index, :, VALIDATION],
            parts[index, :, TEST],
            by_class[index] if classes is not None else None,
        )
        for index in range(len(rules))
    ]
