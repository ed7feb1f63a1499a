"""The rows that one worker trains on and scores, as batches in a fixed order, whether they fit in memory or not.

Rows that are held are taken from memory; others are read again every epoch, row group by row group, into a buffer of
one window. Both ways yield the same rows in the same order with the same bits, because memory decides neither the order
(`nnlib.data.sampling.epoch_order`) nor the conversion (`nnlib.data.feature_converter.Converter`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array, BoolArray
from nnlib.core.errors import ConfigError
from nnlib.data.batches import CHUNK_ROWS, SCORE_ROWS, Batch, SelectedRows, join_batches
from nnlib.data.dataset import Dataset
from nnlib.data.decoded_cache import DecodedCache
from nnlib.data.decoded_rows import ShardRows
from nnlib.data.feature_converter import Converter
from nnlib.data.row_selection import FileRows, HeldRows, RowFilter, select_rows
from nnlib.data.sampling import Key, epoch_order
from nnlib.data.scaling import FeatureStats, Scaler
from nnlib.data.shard_cache import ShardCache
from nnlib.data.shard_reader import RowGroup, RowLabels
from nnlib.data.split.rule import TRAIN, SplitRule


class WorkerData:
    """The shards of one worker. Use it as a context manager: leaving closes its files.

    ``train_shards``: the shards it trains on, those assigned to it or, with shared streams, all. ``score_shards``:
    those assigned to it. ``memory_bytes`` bounds decoded rows. ``extra_columns``: the columns that split rules read
    (`SplitRule.columns`). ``cache``: a cache of shards that are not on this machine. ``decoded``: the node's decoded
    rows. Raises `MismatchError` and `DataError` if a shard is not what the manifest says.
    """

    def __init__(
        self,
        dataset: Dataset,
        train_shards: Sequence[int],
        score_shards: Sequence[int],
        *,
        memory_bytes: int,
        extra_columns: Sequence[str] = (),
        cache: ShardCache | None = None,
        decoded: DecodedCache | None = None,
    ) -> None:
        self.dataset = dataset
        self.train_shards = tuple(sorted(set(train_shards)))
        self.score_shards = tuple(sorted(set(score_shards)))
        shards = (*self.train_shards, *self.score_shards)
        self.rows = ShardRows(
            dataset, shards, memory_bytes=memory_bytes, extra_columns=extra_columns, cache=cache, decoded=decoded
        )

    def close(self) -> None:
        """Close the files, if any are open."""
        self.rows.close()

    def __enter__(self) -> WorkerData:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def trial(self, rule: SplitRule, scaler: Scaler | None, dtype: npt.DTypeLike) -> TrialData:
        """Return the rows of one trial: split by ``rule``, converted to ``dtype`` with the trial's feature scaling."""
        stored, scale, offset = self.dataset.x_dtype, self.dataset.x_scale, self.dataset.x_offset
        converter = Converter(scale, offset, scaler, dtype, is_wide=stored == "float64")
        return TrialData(self, rule, converter)

    def feature_stats(self, rule: SplitRule, shard: int) -> FeatureStats:
        """Return the statistics of the training rows of one shard, to be merged in the order of the shards."""
        converter = Converter(self.dataset.x_scale, self.dataset.x_offset, None, np.float64)
        rows = select_rows(self.rows, (shard,), lambda labels: _parts(rule, labels) == TRAIN, None)
        stats = FeatureStats.zero(self.dataset.features)
        for batch in join_batches(rows.in_stored_order(), SCORE_ROWS, converter):
            stats = stats.merge(FeatureStats.of(batch.x))
        return stats


class TrialData:
    """The rows of one trial on one worker."""

    def __init__(self, data: WorkerData, rule: SplitRule, converter: Converter) -> None:
        self.data = data
        self.rule = rule
        self.converter = converter

    def as_stored(self) -> TrialData:
        """Return the same rows as they are stored: `converter` converts them elsewhere."""
        dtype = self.data.dataset.x_dtype
        return TrialData(self.data, self.rule, Converter(1.0, 0.0, None, dtype))

    @cached_property
    def train_rows(self) -> int:
        """Training rows in the training shards; it may be 0."""
        return self._train.count

    def sample(self, fraction: float = 1.0, key: Key = (0, 0)) -> Sample:
        """Return the training rows of one round, drawn as `nnlib.data.sampling.sample_mask` draws them.

        ``fraction``: of the training rows, 1 for all. ``key``: seeds the draw.
        """
        return Sample(self, self._train if fraction >= 1.0 else self._train.sample(fraction, key))

    def score_batches(self, part: int) -> Iterator[Batch]:
        """Yield the rows of a part (such as `nnlib.data.split.rule.TEST`) in the score shards, in storage order and in
        batches of `SCORE_ROWS`."""
        rows = self._rows(self.data.score_shards, lambda labels: _parts(self.rule, labels) == part)
        return self.batches_of(rows.in_stored_order(), SCORE_ROWS)

    def batches_of(self, selected: Iterator[SelectedRows], batch_rows: int) -> Iterator[Batch]:
        """Yield rows as converted batches of ``batch_rows``; only the last may be smaller."""
        is_converted = self._converted is not None or self.converter.is_identity(self.data.rows.stored)
        return join_batches(selected, batch_rows, None if is_converted else self.converter)

    def _train_mask(self, labels: RowLabels | RowGroup) -> BoolArray:
        return np.asarray(_parts(self.rule, labels) == TRAIN)

    @cached_property
    def _train(self) -> HeldRows | FileRows:
        return self._rows(self.data.train_shards, self._train_mask)

    @cached_property
    def _converted(self) -> Array | None:
        return self.data.rows.convert(self.converter)

    def _rows(self, shards: Sequence[int], row_filter: RowFilter) -> HeldRows | FileRows:
        return select_rows(self.data.rows, shards, row_filter, self._converted)


class Sample:
    """The rows a worker trains on in one round."""

    def __init__(self, trial: TrialData, chosen: HeldRows | FileRows) -> None:
        self._trial = trial
        self._chosen = chosen

    @property
    def rows(self) -> int:
        """Rows in the sample; 0 if the worker has no training rows."""
        return self._chosen.count

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return self._trial.data.dataset.shape

    def chunks(self, chunk_rows: int = CHUNK_ROWS) -> Iterator[Batch]:
        """Yield the rows in storage order in batches of ``chunk_rows``, for optimizers that use all rows in a step."""
        return self._trial.batches_of(self._chosen.in_stored_order(), chunk_rows)

    def batches(self, rng: np.random.Generator, *, window_rows: int, batch_size: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, in the order that ``rng`` draws.

        ``rng``: of `nnlib.core.seeds.generator` with ``Purpose.ORDER``. ``window_rows``: rows that are shuffled
        together. ``batch_size``: rows of a batch; the last may be smaller. Raises `ConfigError` if the rows are not
        held in memory and a window of them would not fit either.
        """
        rows = self._trial.data.rows
        window_rows = min(window_rows, max(self.rows, 1))
        size = window_rows * rows.row_bytes
        if rows.block is None and size > rows.memory_bytes:
            raise ConfigError(
                f"a window of {window_rows} rows takes {size} bytes, runtime.memory_mb allows {rows.memory_bytes}",
                hint=f"set sampling.window_rows to {max(1, rows.memory_bytes // rows.row_bytes)} or less, "
                f"or runtime.memory_mb to {-(-size // 2**20)} or more",
                key="sampling.window_rows",
            )
        order = epoch_order(self._chosen.sizes, window_rows, rng)
        return self._trial.batches_of(self._chosen.in_order(order), min(batch_size, max(self.rows, 1)))


def _parts(rule: SplitRule, labels: RowLabels | RowGroup) -> npt.NDArray[np.uint8]:
    return rule.parts(labels.row, labels.y, labels.extra)
