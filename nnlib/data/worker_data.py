"""The rows one worker trains on and scores, as batches in a fixed order, whether they fit in memory or not.

Rows that are held are gathered from memory; others are read again every epoch, row group by row group, into a buffer
of one window. Both ways give the same rows in the same order with the same bits, because neither the order
(`nnlib.data.sampling.epoch_order`) nor the conversion (`nnlib.data.feature_converter.Converter`) knows of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array, BoolArray, IntArray
from nnlib.core.errors import ConfigError
from nnlib.core.seeds import UInt64, row_hash
from nnlib.data.dataset import Dataset
from nnlib.data.decoded_rows import Block, ShardRows, aligned_matrix
from nnlib.data.feature_converter import Converter
from nnlib.data.sampling import Key, Window, epoch_order, sample_mask, sample_size
from nnlib.data.scaling import FeatureStats, Scaler
from nnlib.data.shard_cache import ShardCache
from nnlib.data.shard_reader import RowGroup, RowLabels
from nnlib.data.split.rank_selection import EVERYTHING, RankSelector, before
from nnlib.data.split.rule import TRAIN, SplitRule

Pick: TypeAlias = Callable[[RowLabels | RowGroup], BoolArray]
"""Chooses rows by their labels: True for each row wanted, shape (n,)."""

SCORE_ROWS = 1024
"""Rows of a chunk in scoring and in feature statistics: fixed, because it decides the bits of sums."""

CHUNK_ROWS = 4096
"""Rows of a chunk in full-batch training (cg, lbfgs): fixed likewise."""


class Batch(NamedTuple):
    """Converted rows: x (b, features) in the model's dtype, y (b,), row ids (b,). Valid until the next batch."""

    x: Array
    y: Array
    row: IntArray


class _Picked(NamedTuple):
    """The rows ``positions`` of ``x``, shape (m, features), with their targets and ids."""

    x: Array
    positions: IntArray
    y: Array
    row: IntArray


class WorkerData:
    """The shards of one worker.

    ``train_shards``: its own (independent streams) or all (shared); ``score_shards``: always its own.
    ``extra_columns``: the kept columns that split rules read (`SplitRule.columns`). ``memory_bytes`` bounds decoded
    rows; ``cache`` keeps shards that lie elsewhere. Raises `MismatchError` and `DataError` if the shards are not what
    the manifest says.
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
    ) -> None:
        self.dataset = dataset
        self.train_shards = tuple(sorted(set(train_shards)))
        self.score_shards = tuple(sorted(set(score_shards)))
        shards = (*self.train_shards, *self.score_shards)
        self.rows = ShardRows(dataset, shards, memory_bytes=memory_bytes, extra_columns=extra_columns, cache=cache)

    def close(self) -> None:
        """Close the files, if any are open."""
        self.rows.close()

    def __enter__(self) -> WorkerData:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def trial(self, rule: SplitRule, scaler: Scaler | None, dtype: npt.DTypeLike) -> TrialData:
        """The rows of one trial: split by ``rule``, converted to ``dtype`` with the trial's feature scaling."""
        converter = Converter(self.dataset.x_scale, self.dataset.x_offset, scaler, dtype)
        return TrialData(self, rule, converter)

    def feature_stats(self, rule: SplitRule, shard: int) -> FeatureStats:
        """Statistics of the training rows of one of the shards held, to be merged in shard order."""
        converter = Converter(self.dataset.x_scale, self.dataset.x_offset, None, np.float64)
        rows = _rows_of(self.rows, (shard,), lambda labels: _parts(rule, labels) == TRAIN, None)
        stats = FeatureStats.zero(self.dataset.features)
        for batch in _joined(rows.stored_order(), SCORE_ROWS, converter):
            stats = stats.merge(FeatureStats.of(batch.x))
        return stats


class TrialData:
    """The rows of one trial on one worker."""

    def __init__(self, data: WorkerData, rule: SplitRule, converter: Converter) -> None:
        self.data = data
        self.rule = rule
        self.converter = converter

    @cached_property
    def train_rows(self) -> int:
        """Training rows on the training shards; 0 is possible."""
        return self._train.count

    def class_counts(self) -> IntArray:
        """Training rows of each class on the training shards, shape (classes,)."""
        counts = np.zeros(len(self.data.dataset.classes), np.int64)
        for labels in self.data.rows.labels(self.data.train_shards):
            counts += np.bincount(labels.y[self._train_mask(labels)], minlength=len(counts))
        return counts

    def sample(self, fraction: float = 1.0, key: Key = (0, 0)) -> Sample:
        """The training rows of one round, chosen as `nnlib.data.sampling.sample_mask` chooses."""
        return Sample(self, self._train if fraction >= 1.0 else self._train.sampled(fraction, key))

    def score(self, part: int) -> Iterator[Batch]:
        """The rows of a part on the score shards in storage order, in chunks of `SCORE_ROWS`."""
        rows = self._rows(self.data.score_shards, lambda labels: _parts(self.rule, labels) == part)
        return self.joined(rows.stored_order(), SCORE_ROWS)

    def joined(self, picked: Iterator[_Picked], batch_rows: int) -> Iterator[Batch]:
        """Rows joined into converted batches of ``batch_rows``; only the last may be smaller."""
        done = self._ready is not None or self.converter.identity(self.data.rows.stored)
        return _joined(picked, batch_rows, None if done else self.converter)

    def _train_mask(self, labels: RowLabels | RowGroup) -> BoolArray:
        return np.asarray(_parts(self.rule, labels) == TRAIN)

    @cached_property
    def _train(self) -> _HeldRows | _FileRows:
        return self._rows(self.data.train_shards, self._train_mask)

    @cached_property
    def _ready(self) -> Array | None:
        return self.data.rows.converted(self.converter)

    def _rows(self, shards: Sequence[int], pick: Pick) -> _HeldRows | _FileRows:
        return _rows_of(self.data.rows, shards, pick, self._ready)


class Sample:
    """The rows a worker trains on in one round."""

    def __init__(self, trial: TrialData, chosen: _HeldRows | _FileRows) -> None:
        self._trial = trial
        self._chosen = chosen

    @property
    def rows(self) -> int:
        """Rows in the sample; 0 if the worker has no training rows."""
        return self._chosen.count

    def chunks(self, chunk_rows: int = CHUNK_ROWS) -> Iterator[Batch]:
        """The rows in storage order in fixed chunks, for optimizers that take all rows a step."""
        return self._trial.joined(self._chosen.stored_order(), chunk_rows)

    def batches(self, rng: np.random.Generator, *, window_rows: int, batch_size: int) -> Iterator[Batch]:
        """One epoch in the order that ``rng`` draws (`nnlib.core.seeds.generator` with ``Purpose.ORDER``).

        Batches have ``batch_size`` rows, the last what is left. Raises `ConfigError` if the rows are not held in
        memory and a window of them would not fit either.
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
        return self._trial.joined(self._chosen.windows(order), min(batch_size, max(self.rows, 1)))


class _HeldRows:
    """Chosen rows of a block in memory: their positions in it, row group by row group."""

    def __init__(self, block: Block, x: Array, positions: IntArray, sizes: Sequence[int]) -> None:
        self._block, self._x, self._positions = block, x, positions
        self.sizes = sizes
        self._starts = list(accumulate(sizes, initial=0))
        self.count = len(positions)

    def sampled(self, fraction: float, key: Key) -> _HeldRows:
        if not self.count:
            return self
        chosen = sample_mask(self._block.row[self._positions], fraction, key)
        sizes = [int(np.count_nonzero(chosen[a:b])) for a, b in pairwise(self._starts)]
        return _HeldRows(self._block, self._x, self._positions[chosen], sizes)

    def stored_order(self) -> Iterator[_Picked]:
        yield self._at(self._positions)

    def windows(self, order: Iterator[Window]) -> Iterator[_Picked]:
        for window in order:
            pieces = [
                self._positions[self._starts[group] + start : self._starts[group] + stop]
                for group, start, stop in window.pieces
            ]
            yield self._at(np.concatenate(pieces)[window.permutation])

    def _at(self, positions: IntArray) -> _Picked:
        return _Picked(self._x, positions, self._block.y[positions], self._block.row[positions])


class _FileRows:
    """Chosen rows of shards that are read again whenever they are needed, one row group in memory at a time."""

    def __init__(self, rows: ShardRows, shards: Sequence[int], pick: Pick) -> None:
        self._rows, self._shards, self._pick = rows, shards, pick
        self._groups = rows.of(shards)

    @cached_property
    def sizes(self) -> Sequence[int]:
        return [int(np.count_nonzero(self._pick(labels))) for labels in self._rows.labels(self._shards)]

    @cached_property
    def count(self) -> int:
        return sum(self.sizes)

    def sampled(self, fraction: float, key: Key) -> _FileRows:
        if not self.count:
            return self
        selector = RankSelector(1)
        for hashes in self._hashes(key):
            selector.count(np.zeros(len(hashes), np.int64), hashes)
        selector.seek([[sample_size(self.count, fraction)]])
        for hashes in self._hashes(key):
            selector.collect(np.zeros(len(hashes), np.int64), hashes)
        ((cut,),) = selector.cuts()
        if cut >= EVERYTHING:
            return self
        pick = self._pick
        return _FileRows(self._rows, self._shards, lambda labels: pick(labels) & before(row_hash(labels.row, key), cut))

    def stored_order(self) -> Iterator[_Picked]:
        for number in range(len(self._groups)):
            rows, positions = self._read(number)
            yield _Picked(rows.x, positions, rows.y[positions], rows.row[positions])

    def windows(self, order: Iterator[Window]) -> Iterator[_Picked]:
        x: Array | None = None
        held, rows, positions = -1, None, np.zeros(0, np.int64)
        for window in order:
            if x is None:  # the first window is the largest
                x = aligned_matrix(len(window.permutation), self._rows.dataset.features, self._rows.stored)
            filled = 0
            labels: list[tuple[Array, IntArray]] = []
            for group, start, stop in window.pieces:
                if rows is None or held != group:
                    rows = None  # let go of it before the next one is decoded
                    held, (rows, positions) = group, self._read(group)
                chosen = positions[start:stop]
                rows.x.take(chosen, 0, x[filled : filled + len(chosen)], "clip")
                labels.append((rows.y[chosen], rows.row[chosen]))
                filled += len(chosen)
            y, row = (np.concatenate(column) for column in zip(*labels, strict=True))
            yield _Picked(x, window.permutation, y[window.permutation], row[window.permutation])

    def _hashes(self, key: Key) -> Iterator[UInt64]:
        for labels in self._rows.labels(self._shards):
            yield row_hash(labels.row[self._pick(labels)], key)

    def _read(self, number: int) -> tuple[RowGroup, IntArray]:
        rows = self._rows.read(self._groups[number])
        return rows, np.flatnonzero(self._pick(rows))


def _parts(rule: SplitRule, labels: RowLabels | RowGroup) -> npt.NDArray[np.uint8]:
    return rule.parts(labels.row, labels.y, labels.extra)


def _rows_of(rows: ShardRows, shards: Sequence[int], pick: Pick, ready: Array | None) -> _HeldRows | _FileRows:
    """The rows that ``pick`` chooses; ``ready`` are all rows in converted form, to take them from there."""
    if rows.block is None:
        return _FileRows(rows, shards, pick)
    positions = [np.zeros(0, np.int64)]
    for group, labels in zip(rows.of(shards), rows.labels(shards), strict=True):
        positions.append(group.start + np.flatnonzero(pick(labels)))
    sizes = [len(chosen) for chosen in positions[1:]]
    return _HeldRows(rows.block, rows.block.x if ready is None else ready, np.concatenate(positions), sizes)


def _joined(picked: Iterator[_Picked], batch_rows: int, converter: Converter | None) -> Iterator[Batch]:
    """Join picked rows into batches in buffers that are used again; ``converter`` None: they are converted already."""
    x_out = x_in = y_out = np.zeros(0)
    row_out = np.zeros(0, np.int64)
    filled = 0
    for x, positions, y, row in picked:
        if not len(row_out):
            x_out = x_in = aligned_matrix(batch_rows, x.shape[1], x.dtype)
            if converter is not None:
                x_out = aligned_matrix(batch_rows, x.shape[1], converter.dtype)
            y_out, row_out = np.empty(batch_rows, y.dtype), np.empty(batch_rows, row.dtype)
        start, end = 0, len(positions)
        while start < end:
            stop = min(end, start + batch_rows - filled)
            upto = filled + stop - start
            # All positions are in range; "clip" keeps take from buffering its output.
            x.take(positions[start:stop], 0, x_in[filled:upto], "clip")
            y_out[filled:upto] = y[start:stop]
            row_out[filled:upto] = row[start:stop]
            start, filled = stop, upto
            if filled == batch_rows:
                yield Batch(x_in if converter is None else converter(x_in, x_out), y_out, row_out)
                filled = 0
    if filled:
        x = x_in[:filled] if converter is None else converter(x_in[:filled], x_out[:filled])
        yield Batch(x, y_out[:filled], row_out[:filled])
