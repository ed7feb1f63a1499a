"""The rows to predict, from a dataset or from a raw file, in the terms of the model that is to predict them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.errors import DataError
from nnlib.data.dataset import MANIFEST, Dataset
from nnlib.data.importing.raw_rows import read_raw_rows
from nnlib.data.shard_cache import ShardCache
from nnlib.data.shard_reader import ShardReader
from nnlib.inference.trained_model import TrainedModel
from nnlib.storage import storage


@dataclass(frozen=True)
class Rows:
    """Rows to predict: ids (n,), features as shards store them (n, features), targets (n,) or None."""

    row: Array
    x: Array
    y: Array | None


def source_rows(model: TrainedModel, source: str) -> Iterator[Rows]:
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
