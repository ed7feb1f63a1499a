"""The batches of a round: with `data.augment` each is changed by draws that its own key decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnlib.config.schema import Config
from nnlib.core.errors import ConfigError
from nnlib.core.seeds import Purpose, generator
from nnlib.data.augmentation import Augmenter
from nnlib.data.batches import Batch
from nnlib.data.dataset import Dataset
from nnlib.data.importing.import_dataset import from_arrays
from nnlib.data.worker_data import WorkerData
from nnlib.run.planner import make_spec
from nnlib.run.spec import JobSpec
from nnlib.training.worker_trial import WorkerTrial

AUGMENT = {"crop": 1, "shift": 2, "flip": True, "noise": 0.1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (101, 6, 5), np.uint8)
    return from_arrays(images, np.arange(101) % 3, str(tmp_path_factory.mktemp("data") / "set"), shards=2)


def spec_of(dataset: Dataset, augment: dict[str, Any] | None, **others: Any) -> JobSpec:
    values = {
        "data": {"path": dataset.address, "augment": augment},
        "workers": 2,
        "seed": 3,
        "model": {"hidden": [4]},
        "train": {"batch_size": 8, "epochs": 2},
    }
    spec, _ = make_spec(Config.model_validate(values | others), dataset)
    return spec


def batches(spec: JobSpec, worker: int, epoch: int, memory_bytes: int = 1 << 24) -> list[Batch]:
    shards = range(2) if spec.config.sampling.streams == "shared" else (worker,)
    with WorkerData(spec.dataset, shards, (worker,), memory_bytes=memory_bytes) as rows:
        work = WorkerTrial.of(spec, spec.trials[0], worker, rows)
        drawn = work.draw_batches(0).epoch(epoch)
        return [Batch(*(array.copy() for array in batch)) for batch in drawn]


def test_every_step_has_draws_of_its_own(dataset: Dataset) -> None:
    changed = spec_of(dataset, AUGMENT)
    augment = changed.config.data.augment
    assert augment is not None
    for worker in range(2):
        for epoch in range(2):
            plain = batches(spec_of(dataset, None), worker, epoch)
            found = batches(changed, worker, epoch)
            assert len(plain) == len(found) > 3
            for step, (before, after) in enumerate(zip(plain, found, strict=True)):
                key = generator(3, Purpose.AUGMENT, split=0, fold=0, epoch=epoch, worker=worker, step=step)
                expected = before.x.copy()
                Augmenter(augment, (6, 5)).apply(expected, key)
                assert np.array_equal(after.x, expected)
                assert not np.array_equal(after.x, before.x)
                assert np.array_equal(after.y, before.y)
                assert np.array_equal(after.row, before.row)


def test_rows_that_are_not_held_are_changed_alike(dataset: Dataset) -> None:
    spec = spec_of(dataset, AUGMENT, sampling={"window_rows": 20})
    held, read = batches(spec, 0, 1), batches(spec, 0, 1, memory_bytes=1000)
    assert all(np.array_equal(a.x, b.x) for a, b in zip(held, read, strict=True))


def test_shared_streams_share_the_draws(dataset: Dataset) -> None:
    spec = spec_of(dataset, AUGMENT, sampling={"streams": "shared"})
    assert all(np.array_equal(a.x, b.x) for a, b in zip(batches(spec, 0, 0), batches(spec, 1, 0), strict=True))


def test_held_rows_stay_as_they_are(dataset: Dataset) -> None:
    """What is changed is a copy: the next epoch begins with the rows of the dataset, and so do scores."""
    spec = spec_of(dataset, AUGMENT)
    with WorkerData(dataset, (0,), (0,), memory_bytes=1 << 24) as rows:
        work = WorkerTrial.of(spec, spec.trials[0], 0, rows)
        before = [batch.x.copy() for batch in work.rows.sample().chunks()]
        first = [batch.x.copy() for batch in work.draw_batches(0).epoch(0)]
        again = [batch.x.copy() for batch in work.draw_batches(0).epoch(0)]
        after = [batch.x.copy() for batch in work.rows.sample().chunks()]
    assert all(map(np.array_equal, first, again))
    assert all(map(np.array_equal, before, after))


def test_rows_that_are_no_images(tmp_path: Path) -> None:
    flat = from_arrays(np.zeros((40, 30)), np.arange(40) % 2, str(tmp_path / "flat"), shards=2)
    with pytest.raises(ConfigError, match=r"key data\.augment\.crop: moves or mirrors images") as caught:
        spec_of(flat, AUGMENT)
    assert "import it with --shape HEIGHTxWIDTH" in str(caught.value)
    assert spec_of(flat, {"noise": 1.0}).config.data.augment is not None
