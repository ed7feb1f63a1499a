"""The pipeline: same bytes whatever the memory and chunking, nothing left when torn, options that do what they say."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nnlib.data.importing.import_plan as import_plan
from nnlib.core.errors import DataError, StorageError, UsageError
from nnlib.data.dataset import MANIFEST, Dataset
from nnlib.data.dataset_check import verify
from nnlib.data.importing.formats.arrays import ArrayColumn, array_table
from nnlib.data.importing.formats.table import Role, Table, rechunk
from nnlib.data.importing.import_dataset import from_arrays, import_dataset, import_tables
from nnlib.data.importing.import_options import ImportOptions
from nnlib.storage import LocalStorage

RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((2000, 5)).astype(np.float32)
Y = np.sort(RANDOM.integers(0, 4, 2000))


def content(dataset: Dataset) -> dict[str, str]:
    files = Path(dataset.address).iterdir()
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def table(dataset: Dataset, shard: int) -> pa.Table:
    return pq.read_table(Path(dataset.address) / dataset.shards[shard].name)


def recut(source: Table, sizes: list[int]) -> Table:
    """The same table, its chunks cut otherwise."""

    def chunks(roles: Mapping[str, Role]) -> Iterator[Any]:
        whole = next(iter(rechunk(iter(source.chunks(roles)), 10**9)))
        start = 0
        for size in itertools.cycle(sizes):
            if start >= len(X):
                return
            yield {name: column[start : start + size] for name, column in whole.items()}
            start += size

    return replace(source, chunks=chunks)


def source(x: np.ndarray = X, y: np.ndarray = Y) -> Table:
    return array_table("arrays", {"x": ArrayColumn.of(x), "y": ArrayColumn.of(y)}, ["x"], "y")


class TestSameBytes:
    def test_whatever_the_memory_and_the_chunks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        holes = X.copy()
        holes[RANDOM.random(X.shape) < 0.1] = np.nan
        options = ImportOptions(shards=3, row_group_rows=100, nulls="mean")
        contents = []
        for number, (sizes, memory, bucket) in enumerate(
            [([10**9], 1 << 30, 1 << 30), ([7, 1, 300], 0, 1 << 30), ([1999], 5000, 2000), ([64], 1 << 30, 500)]
        ):
            monkeypatch.setattr(import_plan, "BUCKET_BYTES", bucket)
            out = str(tmp_path / str(number))
            chosen = replace(options, buffer_bytes=memory)
            contents.append(content(import_tables([recut(source(holes), sizes)], out, chosen)))
        assert all(one == contents[0] for one in contents)
        assert len(contents[0]) == 4

    def test_again(self, tmp_path: Path) -> None:
        first = from_arrays(X, Y, str(tmp_path / "a"), shards=4, seed=9)
        again = from_arrays(X, Y, str(tmp_path / "b"), shards=4, seed=9)
        other = from_arrays(X, Y, str(tmp_path / "c"), shards=4, seed=10)
        assert content(first) == content(again)
        assert first.fingerprint == again.fingerprint != other.fingerprint


class TestShards:
    def test_rows_are_balanced_shuffled_and_keep_their_ids(self, tmp_path: Path) -> None:
        dataset = from_arrays(X, Y, str(tmp_path / "d"), shards=3, row_group_rows=100)
        assert sorted(shard.rows for shard in dataset.shards) == [666, 667, 667]
        ids: list[int] = []
        for index, shard in enumerate(dataset.shards):
            part = table(dataset, index)
            rows = part.column("row").to_numpy()
            ids += rows.tolist()
            assert np.array_equal(np.array(part.column("x").to_pylist(), np.float32), X[rows])
            assert np.array_equal(part.column("y").to_numpy(), Y[rows])
            assert abs(np.corrcoef(np.arange(len(rows)), rows)[0, 1]) < 0.15  # the input was sorted by label
            assert max(shard.class_counts) - min(shard.class_counts) < 60
            groups = pq.ParquetFile(Path(dataset.address) / shard.name).metadata
            assert [groups.row_group(group).num_rows for group in range(6)] == [100] * 6
        assert sorted(ids) == list(range(len(X)))

    def test_by_label(self, tmp_path: Path) -> None:
        shuffled = RANDOM.permutation(Y)
        dataset = from_arrays(X, shuffled, str(tmp_path / "d"), shards=4, by_label=True)
        labels = [table(dataset, index).column("y").to_numpy() for index in range(4)]
        assert [len(part) for part in labels] == [500] * 4
        assert np.array_equal(np.concatenate([np.sort(part) for part in labels]), Y)

    def test_duckdb_reads_shards_as_plain_parquet(self, tmp_path: Path) -> None:
        pixels = RANDOM.integers(0, 256, (300, 4, 4), np.uint8)
        for name, x in (("bytes", pixels), ("floats", X[:300])):
            dataset = from_arrays(x, np.arange(300) % 3, str(tmp_path / name), shards=2)
            query = f"select row, x, y from '{dataset.address}/*.parquet' order by row"
            rows = duckdb.execute(query).fetchall()
            assert [row for row, _, _ in rows] == list(range(300))
            assert np.array_equal(np.array([x for _, x, _ in rows]), x.reshape(300, -1))
            assert [y for _, _, y in rows] == [row % 3 for row in range(300)]


class TestTorn:
    def test_a_failing_disk_leaves_no_dataset(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = LocalStorage.write

        def full(self: LocalStorage, name: str, data: bytes) -> None:
            if name == MANIFEST:
                raise StorageError("the disk is full")
            write(self, name, data)

        monkeypatch.setattr(LocalStorage, "write", full)
        with pytest.raises(StorageError):
            from_arrays(X, Y, str(tmp_path / "d"), shards=2, buffer_bytes=0)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        assert not list(tmp_path.glob(".*"))

    def test_bad_data_found_late_leaves_the_old_dataset(self, tmp_path: Path) -> None:
        old = content(from_arrays(X, Y, str(tmp_path / "d")))
        bad = X.copy()
        bad[-1, 0] = np.inf
        with pytest.raises(DataError, match="row 2000"):
            from_arrays(bad, Y, str(tmp_path / "d"), overwrite=True, buffer_bytes=0)
        assert content(Dataset.open(str(tmp_path / "d"))) == old
        assert [path.name for path in tmp_path.iterdir()] == ["d"]

    def test_interrupted_while_writing(self, tmp_path: Path) -> None:
        def stop(done: int, total: int | None) -> None:
            if done >= 1500:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            import_tables([source()], str(tmp_path / "d"), ImportOptions(shards=4, buffer_bytes=0), stop)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_an_existing_dataset_is_kept_unless_told(self, tmp_path: Path) -> None:
        first = from_arrays(X, Y, str(tmp_path / "d"), shards=5)
        with pytest.raises(UsageError, match="--overwrite"):
            from_arrays(X, Y, str(tmp_path / "d"), shards=2)
        second = from_arrays(X, Y, str(tmp_path / "d"), shards=2, overwrite=True)
        assert len(content(first)) == 3  # its other shards are gone
        assert verify(second) == []


class TestOptions:
    def csv(self, tmp_path: Path, text: str, **options: Any) -> Dataset:
        (tmp_path / "a.csv").write_text(text)
        return import_dataset([str(tmp_path / "a.csv")], str(tmp_path / "d"), ImportOptions(label="y", **options))

    def values(self, dataset: Dataset) -> list[list[float]]:
        rows = table(dataset, 0).sort_by("row").column("x").to_pylist()
        return [[round(value, 4) for value in row] for row in rows]

    def test_one_hot_and_means(self, tmp_path: Path) -> None:
        dataset = self.csv(
            tmp_path, "a,colour,y\n1,red,0\n,blue,1\n4,red,0\n7,,1\n", categorical=("colour",), nulls="mean"
        )
        assert dataset.encoding.feature_names == ["a", "colour=blue", "colour=red"]
        assert self.values(dataset) == [[1, 0, 1], [4, 1, 0], [4, 0, 1], [7, 0.3333, 0.6667]]
        assert dataset.encoding.columns[0].fill == (4.0,)

    def test_categories_that_are_numbers_are_in_their_order(self, tmp_path: Path) -> None:
        dataset = self.csv(tmp_path, "c,y\n10,0\n9,1\n", categorical=("c",))
        assert dataset.encoding.feature_names == ["c=9", "c=10"]
        assert self.values(dataset) == [[0, 1], [1, 0]]

    def test_means_of_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="all values are missing"):
            self.csv(tmp_path, "a,b,y\n1,,0\n2,,1\n", nulls="mean")

    @pytest.mark.parametrize(
        ("labels", "task", "classes"),
        [
            ("3 10 3", "classification", ("3", "10")),
            ("3.0 10.0 3", "classification", ("3", "10")),
            ("b 10 a", "classification", ("10", "a", "b")),
            ("0.5 1 2", "regression", ()),
            ("-1 1 -1", "classification", ("-1", "1")),
        ],
    )
    def test_the_task_is_told_by_the_labels(self, tmp_path: Path, labels: str, task: str, classes: Any) -> None:
        dataset = self.csv(tmp_path, "a,y\n" + "".join(f"1,{label}\n" for label in labels.split()))
        assert (dataset.task, dataset.classes) == (task, classes)

    def test_many_whole_numbers_are_a_target(self, tmp_path: Path) -> None:
        assert from_arrays(X, np.arange(2000), str(tmp_path / "a")).task == "regression"
        assert from_arrays(X, np.arange(2000) % 1000, str(tmp_path / "b")).task == "classification"
        chosen = from_arrays(X, np.arange(2000), str(tmp_path / "c"), task="classification")
        assert len(chosen.classes) == 2000

    def test_kept_columns(self, tmp_path: Path) -> None:
        dataset = self.csv(tmp_path, "a,id,who,y\n1,7,007,0\n2,,x,1\n", keep=("id", "who"))
        assert dataset.columns == {"id": "int64", "who": "string"}
        rows = table(dataset, 0).sort_by("row").to_pylist()
        assert [(row["id"], row["who"]) for row in rows] == [(7, "007"), (None, "x")]
        assert dataset.encoding.feature_names == ["a"]

    def test_shape(self, tmp_path: Path) -> None:
        assert self.csv(tmp_path, "a,b,c,d,y\n1,2,3,4,0\n1,2,3,4,1\n", shape=(2, 2)).shape == (2, 2)

    @pytest.mark.parametrize(
        "options",
        [
            {"label": "z"},
            {"label": "y", "features": ("a", "y")},
            {"label": "y", "features": ("a", "a")},
            {"label": "y", "shape": (3,)},
            {"label": "y", "shards": 3},
            {"label": "y", "label_map": {"5": "6"}},
            {"label": "y", "keep": ("nothing",)},
            {"label": "y", "task": "regression", "by_label": True},
            {"label": "y", "dtype": "uint8", "nulls": "mean"},
            {},
        ],
    )
    def test_wrong_usage(self, tmp_path: Path, options: dict[str, Any]) -> None:
        (tmp_path / "a.csv").write_text("a,b,y\n1,2,0\n1,2,1\n")
        with pytest.raises(UsageError):
            import_dataset([str(tmp_path / "a.csv")], str(tmp_path / "d"), ImportOptions(**options))
        assert not (tmp_path / "d").exists()

    def test_progress_ends_at_all_rows(self, tmp_path: Path) -> None:
        reports: list[tuple[int, int | None]] = []
        import_tables([source()], str(tmp_path / "d"), ImportOptions(), lambda *args: reports.append(args))
        assert reports[-1] == (2000, 2000)
        assert [done for done, _ in reports] == sorted(done for done, _ in reports)

    def test_wide_one_hot_is_encoded_piece_by_piece(self, tmp_path: Path) -> None:
        codes = RANDOM.integers(0, 700, 3000)
        text = "a,c,y\n" + "".join(f"{row},{code},{row % 2}\n" for row, code in enumerate(codes))
        dataset = self.csv(tmp_path, text, categorical=("c",), shards=2)
        names = dataset.encoding.feature_names
        for shard in (0, 1):
            for row in table(dataset, shard).to_pylist():
                assert row["x"][0] == row["row"]
                assert [names[1 + index] for index, one in enumerate(row["x"][1:]) if one] == [f"c={codes[row['row']]}"]
