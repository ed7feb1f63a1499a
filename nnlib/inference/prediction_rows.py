"""The rows to predict, from a dataset or from a raw file, in the terms of the model that is to predict them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from nnlib.core.arrays import Array
from nnlib.data.dataset import MANIFEST, Dataset
from nnlib.data.importing.raw_rows import read_raw_rows
from nnlib.data.importing.read_options import ReadingChanges
from nnlib.data.shard_cache import ShardCache
from nnlib.data.shard_reader import ShardReader
from nnlib.inference.feature_matching import FeatureMatching
from nnlib.inference.label_matching import LabelMatching
from nnlib.inference.prediction_table import check_kept_names
from nnlib.inference.trained_model import TrainedModel
from nnlib.storage import storage


@dataclass(frozen=True)
class Rows:
    """Rows to predict: ids (n,), features as shards store them (n, features), targets (n,) or None.

    Targets are those of `Encoding.find_labels`. ``kept``: columns to write with the predictions, n values each.
    ``unknown``: rows by feature column whose category the model does not know.
    """

    row: Array
    x: Array
    y: Array | None
    kept: Mapping[str, pa.Array] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)


def source_rows(
    model: TrainedModel, source: str | Dataset, keep: Sequence[str] = (), reading: ReadingChanges | None = None
) -> Iterator[Rows]:
    """Read the rows of a dataset, or of the raw files at an address in the encoding of the model's dataset.

    ``keep`` names columns to read as well. ``reading``: options for raw files that go before those stored with the
    dataset. Raises `UsageError` where there is no such column.
    """
    trained_on = model.spec.dataset
    if isinstance(source, str):
        for raw in read_raw_rows(source, trained_on.encoding, reading, keep, trained_on.shape):
            yield Rows(np.arange(raw.row, raw.row + len(raw.x)), raw.stored, raw.y, raw.kept, raw.unknown)
        return
    matching = DatasetMatching.of(model, source)
    check_kept(source, keep)
    for shard in range(len(source.shards)):
        yield from shard_rows(source, shard, matching, keep=keep)


def dataset_at(address: str) -> Dataset | None:
    """Return the dataset at an address; None where there is none, but raw files."""
    return Dataset.open(address) if storage(address).exists(MANIFEST) else None


def check_kept(dataset: Dataset, keep: Sequence[str]) -> None:
    """Raise `UsageError` for a name that is no column that the dataset keeps, nor that of its labels."""
    check_kept_names(keep, (*dataset.columns, label_name(dataset)), dataset.address)


def label_name(dataset: Dataset) -> str:
    """Return the name that the labels of a dataset had in its source."""
    return dataset.encoding.label or "y"


@dataclass(frozen=True)
class DatasetMatching:
    """What the features and the labels of a dataset are to a model."""

    features: FeatureMatching
    labels: LabelMatching

    @classmethod
    def of(cls, model: TrainedModel, dataset: Dataset) -> DatasetMatching:
        """Match a dataset to a model, which need not know all of its labels.

        Raises `DataError` for a dataset whose features the model cannot read.
        """
        trained_on = model.spec.dataset
        return cls(FeatureMatching.of(trained_on, dataset), LabelMatching.of(trained_on, dataset))


def shard_rows(
    dataset: Dataset, shard: int, matching: DatasetMatching, cache: ShardCache | None = None, keep: Sequence[str] = ()
) -> Iterator[Rows]:
    """Read a shard's rows in the terms of a model, a row group at a time. ``keep``: columns to read as well."""
    with ShardReader(dataset, shard, cache=cache) as reader:
        for number in range(dataset.shards[shard].row_groups):
            group = reader.row_group(number)
            stored = reader.columns(number, [name for name in keep if name in dataset.columns]) if keep else {}
            kept = {name: stored[name] if name in stored else _labels(dataset, group.y) for name in keep}
            x, unknown = matching.features.apply(group.x, group.row)
            yield Rows(group.row, x, matching.labels.labels(group.y), kept, unknown)


def _labels(dataset: Dataset, y: Array) -> pa.Array:
    return pa.array(dataset.classes, pa.string()).take(pa.array(y)) if dataset.classes else pa.array(y)
