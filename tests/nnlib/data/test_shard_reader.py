"""The reader gives what was written, and refuses whatever the manifest does not promise, naming shard and row."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shards import write_dataset

from nnlib.core.errors import ConfigError, DataError, MismatchError
from nnlib.data.dataset import Dataset
from nnlib.data.shard_reader import ShardReader, label_chunks


def rows(count: int, features: int = 3) -> Any:
    return np.arange(count * features, dtype=np.float32).reshape(count, features)


def promised(dataset: Dataset) -> Dataset:
    """The dataset with the sizes and hashes its files really have: what is wrong then is inside."""
    shards = []
    for shard in dataset.shards:
        data = (Path(dataset.address) / shard.name).read_bytes()
        shards.append(replace(shard, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    return replace(dataset, shards=tuple(shards))


@pytest.mark.parametrize("decoded", [2**19, 9, 1])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_reads_what_was_written(tmp_path: Path, dtype: str, decoded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole row groups at once, in pieces of three rows, row by row."""
    monkeypatch.setattr("nnlib.data.shard_reader._DECODED", decoded)
    x, y = rows(50).astype(dtype), np.arange(50) % 4
    who = [f"p{i % 7}" for i in range(50)]
    extra = {"who": who, "site": list(range(50))}
    written = write_dataset(tmp_path, x, y, shards=2, row_group_rows=8, classes=4, extra=extra, dtype=dtype)
    dataset = Dataset.open(str(tmp_path))
    assert dataset == written
    seen = []
    for shard in range(2):
        with ShardReader(dataset, shard, ["who", "site"]) as reader:
            assert reader.group_rows == (8, 8, 8, 1)
            labels = list(reader.labels())
            for index in range(4):
                group = reader.row_group(index)
                assert (group.shard, group.index) == (shard, index)
                assert group.x.dtype == dtype
                assert group.x.flags.c_contiguous
                assert not group.x.flags.writeable
                np.testing.assert_array_equal(group.x, x[group.row])
                np.testing.assert_array_equal(group.y, y[group.row])
                assert group.extra["who"].tolist() == [who[row] for row in group.row]
                assert group.extra["site"].tolist() == group.row.tolist()
                for mine, theirs in ((group.row, labels[index].row), (group.y, labels[index].y)):
                    np.testing.assert_array_equal(mine, theirs)
                seen += group.row.tolist()
    assert sorted(seen) == list(range(50))
    chunks = list(label_chunks(dataset, ["who"])())
    assert [chunk.shard for chunk in chunks] == [0] * 4 + [1] * 4
    assert [row for chunk in chunks for row in chunk.row.tolist()] == seen


def test_features_are_not_copied(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, rows(20), np.zeros(20), row_group_rows=20)
    with ShardReader(dataset, 0) as reader:
        group = reader.row_group(0)
    assert not group.x.flags.owndata
    assert not group.x.flags.writeable


def test_numeric_targets(tmp_path: Path) -> None:
    y = np.linspace(-1, 1, 12)
    dataset = write_dataset(tmp_path, rows(12), y)
    with ShardReader(dataset, 0) as reader:
        np.testing.assert_array_equal(np.concatenate([labels.y for labels in reader.labels()]), y)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, rows(30), np.zeros(30), shards=2)
    path = tmp_path / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    ShardReader(dataset, 0).close()
    with pytest.raises(MismatchError, match=r"part-00001.*SHA-256.*\n.*what to do"):
        ShardReader(dataset, 1)
    path.write_bytes(data[:-1])
    with pytest.raises(MismatchError, match=r"part-00001.*bytes long, the manifest says"):
        ShardReader(dataset, 1)
    path.unlink()
    with pytest.raises(MismatchError, match=r"part-00001.*is not there"):
        ShardReader(dataset, 1)


def test_the_hash_is_computed_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_dataset(tmp_path, rows(30), np.zeros(30))
    ShardReader(dataset, 0).close()
    monkeypatch.setattr("nnlib.data.shard_reader.hashlib.sha256", None)
    ShardReader(dataset, 0).close()
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(path.read_bytes())
    with pytest.raises(TypeError):  # written again: another modification time, so it would be hashed again
        ShardReader(dataset, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": 4}, r"column x is fixed_size_list<.*float.*>\[3\], the manifest says .*\[4\]"),
        ({"x_dtype": "uint8"}, r"column x is .*float.*, the manifest says .*uint8"),
        ({"task": "regression", "classes": ()}, "column y is int32, the manifest says double"),
        ({"columns": {"who": "string"}}, "column who is missing, the manifest says string"),
    ],
)
def test_another_schema_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    dataset = replace(write_dataset(tmp_path, rows(9), np.zeros(9, int), classes=2), **change)
    with pytest.raises(MismatchError, match=f"part-00000.*{message}"):
        ShardReader(dataset, 0)


@pytest.mark.parametrize(("field", "message"), [("rows", "20 rows"), ("row_groups", "2 row groups")])
def test_other_counts_are_refused(tmp_path: Path, field: str, message: str) -> None:
    dataset = write_dataset(tmp_path, rows(20), np.zeros(20))
    changed: dict[str, Any] = {field: 3}
    shard = replace(dataset.shards[0], **changed)
    with pytest.raises(MismatchError, match=f"{message}, the manifest says 3"):
        ShardReader(replace(dataset, shards=(shard,)), 0)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, rows(5), np.zeros(5))
    (tmp_path / "part-00000.parquet").write_bytes(b"not a table at all, though long enough to look at")
    with pytest.raises(MismatchError, match=r"part-00000.*not a readable Parquet file"):
        ShardReader(promised(dataset), 0)


@pytest.mark.parametrize(
    ("x", "y", "classes", "message"),
    [
        ([[1, 2], [3, float("nan")]], [0, 1], 2, "row 71: feature 1 is nan"),
        ([[1, 2], [float("-inf"), 3]], [0, 1], 2, "row 71: feature 0 is -inf"),
        ([[1, 2], [3, None]], [0, 1], 2, "row 71: feature 1 has no value"),
        ([[1, 2], None], [0, 1], 2, "row 71: column x has no value"),
        ([[1, 2], [3, 4]], [0, 2], 2, "row 71: label 2 is not one of the 2 classes"),
        ([[1, 2], [3, 4]], [0, -1], 2, "row 71: label -1"),
        ([[1, 2], [3, 4]], [0, None], 2, "row 71: column y has no value"),
        ([[1, 2], [3, 4]], [0.5, float("inf")], None, "row 71: the target is inf"),
    ],
)
@pytest.mark.parametrize("decoded", [2**19, 2])
def test_bad_values_name_the_row(
    tmp_path: Path, x: Any, y: Any, classes: int | None, message: str, decoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnlib.data.shard_reader._DECODED", decoded)
    dataset = write_dataset(tmp_path, x, y, classes=classes, row=[70, 71])
    with ShardReader(dataset, 0) as reader, pytest.raises(DataError, match=f"part-00000.parquet, {message}"):
        reader.row_group(0)


def test_missing_row_ids_are_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, rows(2), np.zeros(2))
    path = tmp_path / "part-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "row", pa.array([1, None], pa.int64())), path)
    with ShardReader(promised(dataset), 0) as reader, pytest.raises(DataError, match="column row has no value"):
        next(reader.labels())


def test_columns_that_are_not_kept_are_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, rows(4), np.zeros(4), extra={"who": ["a"] * 4})
    with pytest.raises(ConfigError, match=r"no column 'group'; kept: who"):
        ShardReader(dataset, 0, ["group"])
