from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nnlib.core.errors import UsageError
from nnlib.data.dataset import Dataset
from nnlib.data.dataset_check import verify
from nnlib.data.synthetic import CHUNK_ROWS, SynthOptions, synthesize


def rows(dataset: Dataset) -> pa.Table:
    parts = [pq.read_table(Path(dataset.address) / shard.name) for shard in dataset.shards]
    return pa.concat_tables(parts).sort_by("row")


@pytest.mark.parametrize("kind", ["digits", "blobs"])
def test_rows_do_not_depend_on_shards(tmp_path: Path, kind: str) -> None:
    count = CHUNK_ROWS + 77
    made = [
        synthesize(str(tmp_path / str(shards)), SynthOptions(kind, count, shards, classes=10))  # type: ignore[arg-type]
        for shards in (1, 3)
    ]
    assert [verify(dataset) for dataset in made] == [[], []]
    assert rows(made[0]).equals(rows(made[1]))
    assert Dataset.open(made[1].address) == made[1]
    again = synthesize(str(tmp_path / "again"), SynthOptions(kind, count, 3))  # type: ignore[arg-type]
    other = synthesize(str(tmp_path / "other"), SynthOptions(kind, count, 3, seed=1))  # type: ignore[arg-type]
    assert again.fingerprint == made[1].fingerprint != other.fingerprint


def test_chunks_differ(tmp_path: Path) -> None:
    dataset = synthesize(str(tmp_path / "d"), SynthOptions("digits", 2 * CHUNK_ROWS, features=400))
    assert (dataset.shape, dataset.x_dtype, dataset.features) == ((20, 20), "uint8", 400)
    x = rows(dataset).column("x").combine_chunks().flatten().to_numpy().reshape(-1, 400)
    assert len(np.unique(x, axis=0)) == 2 * CHUNK_ROWS


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_blobs_are_around_their_centres(tmp_path: Path, dtype: str) -> None:
    options = SynthOptions("blobs", 6000, 2, features=8, classes=3, dtype=dtype)  # type: ignore[arg-type]
    dataset = synthesize(str(tmp_path / "d"), options)
    table = rows(dataset)
    stored = table.column("x").combine_chunks().flatten().to_numpy().reshape(-1, 8)
    x, y = dataset.encoding.decode(stored), table.column("y").to_numpy()
    centres = np.array([x[y == label].mean(axis=0) for label in range(3)])
    for label in range(3):
        assert np.allclose(x[y == label].std(axis=0), 1.0, atol=0.08)
    nearest = ((x[:, None, :] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == y).mean() > 0.85


@pytest.mark.parametrize(
    "options",
    [
        SynthOptions("digits", 5, 6),
        SynthOptions("digits", 5, features=100),
        SynthOptions("digits", 5, dtype="float32"),
        SynthOptions("blobs", 5, classes=1),
    ],
)
def test_wrong_usage(tmp_path: Path, options: SynthOptions) -> None:
    with pytest.raises(UsageError):
        synthesize(str(tmp_path / "d"), options)
    assert not (tmp_path / "d").exists()
