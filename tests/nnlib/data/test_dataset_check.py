from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nnlib.data.dataset import Dataset
from nnlib.data.dataset_check import Problem, describe, verify
from nnlib.data.importing.import_dataset import from_arrays


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    x = np.random.default_rng(0).standard_normal((90, 3))
    return from_arrays(x, np.arange(90) % 3, str(tmp_path / "d"), shards=2, row_group_rows=20)


def forge(dataset: Dataset, change: Any) -> list[Problem]:
    """The problems besides the hash when a column of the first shard is rewritten."""
    path = Path(dataset.address) / dataset.shards[0].name
    columns = pq.read_table(path).to_pydict()
    change(columns)
    pq.write_table(pa.table(columns, schema=dataset.schema), path, row_group_size=dataset.row_group_rows)
    problems = verify(dataset)
    assert any("sha256" in problem.message for problem in problems)
    return [problem for problem in problems if "sha256" not in problem.message]


def test_all_is_well(dataset: Dataset) -> None:
    assert verify(dataset) == []
    facts = describe(dataset)
    assert facts["classes"] == {"0": 30, "1": 30, "2": 30}
    assert [shard["rows"] for shard in facts["shards"]] == [45, 45]


def test_a_flipped_byte(dataset: Dataset) -> None:
    path = Path(dataset.address) / dataset.shards[1].name
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert any(problem.shard == path.name and "sha256" in problem.message for problem in verify(dataset))


def test_a_lost_shard(dataset: Dataset) -> None:
    (Path(dataset.address) / dataset.shards[1].name).unlink()
    assert [problem.shard for problem in verify(dataset)] == [dataset.shards[1].name]


def test_a_value_that_is_not_finite(dataset: Dataset) -> None:
    def change(columns: dict[str, Any]) -> None:
        columns["x"][30][1] = float("nan")

    (problem,) = forge(dataset, change)
    row = pq.read_table(Path(dataset.address) / dataset.shards[0].name).column("row")[30].as_py()
    assert (problem.row, "x[1]" in problem.message) == (row, True)


def test_a_label_outside(dataset: Dataset) -> None:
    def change(columns: dict[str, Any]) -> None:
        columns["y"][7] = 3

    problems = forge(dataset, change)
    assert any("label 3" in problem.message and problem.row is not None for problem in problems)


def test_rows_twice_and_outside(dataset: Dataset) -> None:
    def change(columns: dict[str, Any]) -> None:
        columns["row"][0] = columns["row"][44]
        columns["row"][1] = 90

    messages = " ".join(problem.message for problem in forge(dataset, change))
    assert "twice" in messages
    assert "outside 0 to 89" in messages


def test_missing_rows_are_found(dataset: Dataset) -> None:
    lacking = replace(dataset, rows=91, shards=dataset.shards)
    assert [(problem.row, "missing" in problem.message) for problem in verify(lacking)] == [(90, True)]


def test_fewer_rows(dataset: Dataset) -> None:
    def change(columns: dict[str, Any]) -> None:
        for column in columns.values():
            column.pop()

    assert any("44 rows" in problem.message for problem in forge(dataset, change))
