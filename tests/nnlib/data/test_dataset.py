from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnlib.core.errors import DataError, MismatchError
from nnlib.data.dataset import MANIFEST, Dataset
from nnlib.data.importing.import_dataset import from_arrays


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    x = np.random.default_rng(0).standard_normal((40, 2, 3))
    return from_arrays(x, np.arange(40) % 4, str(tmp_path / "d"), shards=3)


def manifest(dataset: Dataset) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((Path(dataset.address) / MANIFEST).read_text())
    return data


def rewrite(dataset: Dataset, data: Any) -> None:
    (Path(dataset.address) / MANIFEST).write_text(data if isinstance(data, str) else json.dumps(data))


def test_opening_gives_what_was_written(dataset: Dataset) -> None:
    opened = Dataset.open(dataset.address)
    assert opened == dataset
    assert (opened.shape, opened.features, opened.class_counts) == ((2, 3), 6, (10, 10, 10, 10))
    assert opened.fingerprint == dataset.fingerprint == manifest(dataset)["fingerprint"]


def test_no_manifest_is_no_dataset(dataset: Dataset) -> None:
    (Path(dataset.address) / MANIFEST).unlink()
    with pytest.raises(DataError, match="no dataset here"):
        Dataset.open(dataset.address)


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"', "{", "null", '{"format_version": 1}'])
def test_a_manifest_that_is_none(dataset: Dataset, text: str) -> None:
    rewrite(dataset, text)
    with pytest.raises(DataError, match=MANIFEST):
        Dataset.open(dataset.address)


def test_a_newer_format(dataset: Dataset) -> None:
    rewrite(dataset, manifest(dataset) | {"format_version": 2})
    with pytest.raises(DataError, match="format_version 2"):
        Dataset.open(dataset.address)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rows", 41),
        ("rows", "many"),
        ("shape", [2, 2]),
        ("shape", 6),
        ("features", 7),
        ("classes", ["a"]),
        ("classes", ["a", "a", "b", "c"]),
        ("task", "regression"),
        ("task", "guessing"),
        ("x_dtype", "float16"),
        ("shards", []),
        ("shards", {}),
        ("columns", {"who": "blob"}),
        ("row_group_rows", 0),
        ("encoding", None),
    ],
)
def test_contradictions_are_refused(dataset: Dataset, key: str, value: Any) -> None:
    rewrite(dataset, manifest(dataset) | {key: value})
    with pytest.raises(DataError):
        Dataset.open(dataset.address)


def test_shards_that_contradict_are_refused(dataset: Dataset) -> None:
    for change in ({"name": "../part.parquet"}, {"class_counts": [1, 2]}, {"class_counts": [40, -1, 0, 1]}):
        data = manifest(dataset)
        data["shards"][0] |= change
        with pytest.raises(MismatchError):
            Dataset.from_json(dataset.address, data)


def test_the_fingerprint_is_of_the_content(dataset: Dataset) -> None:
    data = manifest(dataset)
    data["name"] = "another"
    assert Dataset.from_json("elsewhere", data).fingerprint == dataset.fingerprint
    data["classes"] = ["a", "b", "c", "d"]
    data["encoding"]["classes"] = ["a", "b", "c", "d"]
    assert Dataset.from_json("elsewhere", data).fingerprint != dataset.fingerprint
