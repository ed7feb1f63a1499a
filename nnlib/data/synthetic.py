"""Make synthetic datasets of any size, for tests of scale: jittered digits and Gaussian blobs.

Rows are made in the order of the shards; row ``i`` is the same for any number of shards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nnlib.core.errors import UsageError
from nnlib.core.seeds import Purpose, generator
from nnlib.data.dataset import Dataset, shard_schema
from nnlib.data.dataset_output import dataset_output
from nnlib.data.encoding import FeatureType, vector_encoding
from nnlib.data.importing.builtin_datasets import CROPPED, SIDE, crop, digits
from nnlib.data.importing.import_dataset import Progress
from nnlib.data.importing.import_plan import PIXEL_SCALE
from nnlib.data.importing.shard_assignment import part_edges
from nnlib.data.shard_writer import (
    default_row_group_rows,
    record_batch,
    write_manifest,
    write_shards,
)
from nnlib.storage import storage

CHUNK_ROWS = 4096
"""Rows drawn from one random generator. Another number would change every synthetic dataset."""

BLOB_DISTANCE = 4.0
"""Expected distance of the centres of two blobs, in standard deviations of a blob."""

BLOB_STEP = 1 / 16
"""The step of uint8 blobs: value = stored * BLOB_STEP - 8."""

Chunk = tuple[npt.NDArray[Any], npt.NDArray[np.int32]]


@dataclass(frozen=True)
class SynthOptions:
    """What to make; `nnjobs data synth --help` explains the options."""

    kind: Literal["digits", "blobs"]
    rows: int
    shards: int = 1
    features: int | None = None
    classes: int = 10
    dtype: Literal["auto", "float32", "float64", "uint8"] = "auto"
    seed: int = 0
    row_group_rows: int | None = None
    name: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class _Source:
    """Makes rows. ``chunk(index)`` returns `CHUNK_ROWS` rows from ``index * CHUNK_ROWS`` on: x, shape (CHUNK_ROWS,
    features), and y, shape (CHUNK_ROWS,)."""

    shape: tuple[int, ...]
    classes: int
    dtype: FeatureType
    scale: float
    offset: float
    chunk: Callable[[int], Chunk]


def synthesize(output: str, options: SynthOptions, progress: Progress | None = None) -> Dataset:
    """Write a synthetic dataset to the address ``output``; memory does not grow with the rows.

    Raises `UsageError` for options that do not fit together.
    """
    files = storage(output)
    if not 1 <= options.shards <= options.rows:
        raise UsageError(f"--rows {options.rows} must be at least --shards {options.shards}, and both above 0")
    source = SOURCES[options.kind](options)
    features = math.prod(source.shape)
    schema = shard_schema("classification", source.dtype, features, {})
    group = options.row_group_rows or default_row_group_rows(features * np.dtype(source.dtype).itemsize)
    edges = part_edges(options.rows, options.shards)
    report = progress or (lambda done, total: None)

    def batches(shard: int) -> Iterator[pa.RecordBatch]:
        first, end = edges[shard], edges[shard + 1]
        for index in range(first // CHUNK_ROWS, math.ceil(end / CHUNK_ROWS)):
            start = index * CHUNK_ROWS
            part = slice(max(first - start, 0), min(end - start, CHUNK_ROWS))
            x, y = source.chunk(index)
            rows = np.arange(start + part.start, start + part.stop, dtype=np.int64)
            yield record_batch(schema, rows, x[part], y[part], {})
            report(start + part.stop, options.rows)

    with dataset_output(files, options.shards, overwrite=options.overwrite) as target, target.replacing():
        shards = write_shards(files, schema, group, source.classes, map(batches, range(options.shards)))
        names = tuple(str(index) for index in range(source.classes))
        encoding = vector_encoding(
            features, source.dtype, label="y", classes=names, scale=source.scale, offset=source.offset
        )
        dataset = Dataset(
            address=output,
            name=options.name or options.kind,
            task="classification",
            shape=source.shape,
            features=features,
            x_dtype=source.dtype,
            x_scale=source.scale,
            x_offset=source.offset,
            classes=names,
            rows=options.rows,
            row_group_rows=group,
            columns={},
            shards=shards,
            encoding=encoding,
        )
        write_manifest(files, dataset)
    return dataset


def _digits(options: SynthOptions) -> _Source:
    """Return a source of MNIST digits that are shifted by up to two pixels each way, dimmed and noised."""
    features = options.features or SIDE * SIDE
    if features not in (SIDE * SIDE, CROPPED * CROPPED):
        raise UsageError(f"digits have {SIDE * SIDE} features, or {CROPPED * CROPPED} cropped; not {features}")
    if options.dtype in ("float32", "float64") or options.classes != 10:
        raise UsageError("digits are uint8 and have 10 classes")
    images, labels = digits()
    reach = 2
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach)))

    def chunk(index: int) -> Chunk:
        random = generator(options.seed, Purpose.SYNTH, epoch=index)
        picked = random.integers(0, len(images), CHUNK_ROWS)
        shifts = random.integers(0, 2 * reach + 1, (CHUNK_ROWS, 2))
        made = np.empty((CHUNK_ROWS, SIDE, SIDE), np.uint8)
        for down in range(2 * reach + 1):
            for right in range(2 * reach + 1):
                moved = np.flatnonzero((shifts == (down, right)).all(axis=1))
                made[moved] = padded[picked[moved], down : down + SIDE, right : right + SIDE]
        made -= made >> random.integers(2, 6, (CHUNK_ROWS, 1, 1), np.uint8)
        noise = random.integers(0, 32, made.shape, np.uint8)
        made += np.minimum(noise, 255 - made)
        x = made if features == SIDE * SIDE else crop(made)
        return x.reshape(CHUNK_ROWS, features), labels[picked].astype(np.int32)

    shape = (SIDE, SIDE) if features == SIDE * SIDE else (CROPPED, CROPPED)
    return _Source(shape, 10, "uint8", PIXEL_SCALE, 0.0, chunk)


def _blobs(options: SynthOptions) -> _Source:
    """Return a source with a Gaussian blob of unit variance for each class, centres about `BLOB_DISTANCE` apart."""
    features = options.features or 20
    if features < 1 or options.classes < 2:
        raise UsageError("blobs need at least 1 feature and 2 classes")
    dtype: FeatureType = "float32" if options.dtype == "auto" else options.dtype
    spread = np.float32(BLOB_DISTANCE / math.sqrt(2 * features))
    # split=1 keeps the centres' stream apart from the chunks' (split=0)
    random = generator(options.seed, Purpose.SYNTH, split=1)
    centres = random.standard_normal((options.classes, features), np.float32) * spread

    def chunk(index: int) -> Chunk:
        random = generator(options.seed, Purpose.SYNTH, epoch=index)
        y = random.integers(0, options.classes, CHUNK_ROWS, np.int32)
        x = random.standard_normal((CHUNK_ROWS, features), np.float32)
        x += centres[y]
        if dtype == "uint8":
            return np.clip(np.rint(x / np.float32(BLOB_STEP)) + 128, 0, 255).astype(np.uint8), y
        return x.astype(dtype, copy=False), y

    if dtype == "uint8":
        return _Source((features,), options.classes, dtype, BLOB_STEP, -8.0, chunk)
    return _Source((features,), options.classes, dtype, 1.0, 0.0, chunk)


SOURCES: dict[str, Callable[[SynthOptions], _Source]] = {"digits": _digits, "blobs": _blobs}
