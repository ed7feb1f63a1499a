"""The rows that a worker trains on in one round, as batches in an order that seeds decide.

Every draw has its own key (purpose, split, fold, epoch, worker; with `data.augment` also the step), so
a fresh process draws the same in the same order. With ``sampling.streams: shared`` the key has no worker: all workers
draw the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from nnlib.config.schema import Config
from nnlib.core.liveness import heartbeat
from nnlib.core.seeds import Purpose, generator, hash_key
from nnlib.data.augmentation import Augmenter
from nnlib.data.batches import CHUNK_ROWS, Batch
from nnlib.data.worker_data import Sample, TrialData
from nnlib.run.spec import Trial


class RoundBatches:
    """One round's sample of a worker's training rows: epochs of mini-batches, or passes over fixed chunks.

    Targets are scaled where the trial scales them. Each batch and chunk that was used counts as a sign of life
    (`nnlib.core.liveness.heartbeat`).
    """

    def __init__(self, sample: Sample, config: Config, trial: Trial, stream: int) -> None:
        self._sample, self._config, self._trial, self._stream = sample, config, trial, stream
        augment = config.data.augment
        self._augmenter = None if augment is None else Augmenter(augment, sample.shape)
        self._held: list[Batch] | None = None
        self._fits: bool | None = None

    @classmethod
    def draw(cls, config: Config, trial: Trial, worker: int, rows: TrialData, epoch: int) -> RoundBatches:
        """Draw ``sampling.fraction`` of a worker's training rows for the round whose first global epoch is
        ``epoch``."""
        stream = worker if config.sampling.streams == "independent" else 0
        key = hash_key(config.seed, Purpose.SAMPLE, split=trial.split, fold=trial.fold, epoch=epoch, worker=stream)
        return cls(rows.sample(config.sampling.fraction, key), config, trial, stream)

    @property
    def rows(self) -> int:
        """Rows in the sample."""
        return self._sample.rows

    @property
    def steps(self) -> int:
        """Mini-batches of an epoch."""
        return -(-self.rows // self._config.train.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Mini-batches of ``train.batch_size`` rows in the order of global epoch ``epoch``; the last has what is
        left."""
        config, trial = self._config, self._trial
        rng = generator(
            config.seed, Purpose.ORDER, split=trial.split, fold=trial.fold, epoch=epoch, worker=self._stream
        )
        window_rows, batch_size = config.sampling.window_rows, config.train.batch_size
        batches = self._sample.batches(rng, window_rows=window_rows, batch_size=batch_size)
        for step, batch in enumerate(batches):
            if self._augmenter is not None:
                self._augmenter.apply(batch.x, self._draws(epoch, step))
            yield self._scaled(batch)
            heartbeat()

    def _draws(self, epoch: int, step: int) -> np.random.Generator:
        """The random numbers that change the rows of a step."""
        return generator(
            self._config.seed,
            Purpose.AUGMENT,
            split=self._trial.split,
            fold=self._trial.fold,
            epoch=epoch,
            worker=self._stream,
            step=step,
        )

    def chunks(self) -> Iterator[Batch]:
        """The whole sample in storage order, in fixed chunks of `nnlib.data.batches.CHUNK_ROWS` rows. May be called
        again: converted rows that fit into ``runtime.memory_mb`` are held from the first pass on."""
        for chunk in self._chunks():
            heartbeat()
            yield chunk

    def _chunks(self) -> Iterable[Batch]:
        if self._fits is None:
            first = next(iter(self._sample.chunks(CHUNK_ROWS)))
            size = self.rows * first.x.shape[1] * first.x.itemsize
            self._fits = size <= self._config.runtime.memory_mb << 20
        if not self._fits:
            return map(self._scaled, self._sample.chunks(CHUNK_ROWS))
        if self._held is None:
            chunks = self._sample.chunks(CHUNK_ROWS)
            self._held = [self._scaled(Batch(*(array.copy() for array in batch))) for batch in chunks]
        return self._held

    def _scaled(self, batch: Batch) -> Batch:
        target = self._trial.target
        return batch if target is None else batch._replace(y=target.scale(batch.y))
