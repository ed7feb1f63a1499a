"""Small datasets for tests, written with pyarrow alone, so that readers are not tested by the importer's own words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nnlib.data.dataset import FEATURE_TYPES, MANIFEST, Dataset, Shard, shard_name
from nnlib.data.encoding import vector_encoding


def write_dataset(
    where: Path,
    x: Any,
    y: Any,
    *,
    shards: int = 1,
    row_group_rows: int = 10,
    classes: int | None = None,
    scale: float = 1.0,
    offset: float = 0.0,
    extra: dict[str, Any] | None = None,
    row: Any = None,
    dtype: str = "float32",
    shape: tuple[int, ...] | None = None,
) -> Dataset:
    """Rows dealt to ``shards`` in turn (row i goes to shard i % shards); ``classes`` None means numeric targets.

    ``x`` may be a list of lists with None in it and ``y`` a list with None, to write what a reader must refuse.
    """
    where.mkdir(parents=True, exist_ok=True)
    features = len(x[0])
    rows = np.arange(len(x)) if row is None else np.asarray(row)
    written = []
    for index in range(shards):
        pick = list(range(index, len(x), shards))
        stored = FEATURE_TYPES[dtype]  # type: ignore[index]
        if isinstance(x, np.ndarray):
            flat = np.ascontiguousarray(x[pick]).astype(dtype).reshape(-1)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(flat, stored), features)
        else:
            lists = pa.array([x[i] for i in pick], pa.list_(stored, features))
        table = pa.table(
            {
                "row": pa.array(rows[pick], pa.int64()),
                "x": lists,
                "y": pa.array([y[i] for i in pick], pa.float64() if classes is None else pa.int32()),
                **{name: pa.array([values[i] for i in pick]) for name, values in (extra or {}).items()},
            }
        )
        name = shard_name(index)
        pq.write_table(table, where / name, row_group_size=row_group_rows, compression="zstd")
        data = (where / name).read_bytes()
        counts = [sum(1 for i in pick if y[i] == label) for label in range(classes or 0)]
        groups = -(-len(pick) // row_group_rows)
        written.append(Shard(name, len(pick), groups, len(data), hashlib.sha256(data).hexdigest(), tuple(counts)))
    kinds = {name: "string" if isinstance(values[0], str) else "int64" for name, values in (extra or {}).items()}
    names = tuple(str(label) for label in range(classes or 0))
    dataset = Dataset(
        address=str(where),
        name=where.name,
        task="regression" if classes is None else "classification",
        shape=shape or (features,),
        features=features,
        x_dtype=dtype,  # type: ignore[arg-type]
        x_scale=scale,
        x_offset=offset,
        classes=names,
        rows=len(x),
        row_group_rows=row_group_rows,
        columns=kinds,
        shards=tuple(written),
        encoding=vector_encoding(features, dtype, label="y", classes=names, scale=scale, offset=offset),  # type: ignore[arg-type]
    )
    (where / MANIFEST).write_text(json.dumps(dataset.to_json()))
    return dataset


def write_run(where: Path) -> Path:
    """In ``where`` a dataset ``data`` (80 rows, 2 classes, 2 shards), ``c.yaml`` and its finished run ``run``."""
    from jobs.__main__ import main

    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 80)
    write_dataset(where / "data", (rng.normal(size=(80, 3)) + y[:, None]).astype(np.float32), y, shards=2, classes=2)
    (where / "c.yaml").write_text(f"data: {{path: '{where / 'data'}'}}\nworkers: 2\ntrain: {{epochs: 2}}\n")
    assert main(["train", str(where / "c.yaml"), "--run-dir", str(where / "run"), "-q"]) == 0
    return where
