"""NumPy files of every layout, and the sparse matrices of scipy: numpy and scipy are the oracles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from jobs.__main__ import main
from nnlib.core.errors import DataError, UsageError
from nnlib.data.dataset import Dataset
from nnlib.data.importing.format_registry import open_tables
from nnlib.data.importing.formats import sparse_files
from nnlib.data.importing.formats.table import Table
from nnlib.data.importing.read_options import ReadOptions

RANDOM = np.random.default_rng(3)
ROWS = 40
X = RANDOM.standard_normal((ROWS, 6))
Y = RANDOM.integers(0, 3, ROWS)


def tables(file: Path, **options: Any) -> list[Table]:
    return open_tables([str(file)], ReadOptions(**options))


def values(table: Table, name: str) -> Any:
    role = "number" if name in table.shapes or table.types[name].startswith(("f", "i", "u")) else "value"
    return np.concatenate([np.asarray(chunk[name]) for chunk in table.chunks({name: role})])  # type: ignore[dict-item]


def imported(tmp_path: Path, *arguments: str | Path) -> tuple[Dataset, Any]:
    """The dataset that the command makes, and its rows in the order of the input."""
    assert main(["data", "import", *map(str, arguments), "-o", str(tmp_path / "ds"), "--overwrite"]) == 0
    dataset = Dataset.open(str(tmp_path / "ds"))
    return dataset, pq.read_table(tmp_path / "ds" / dataset.shards[0].name).sort_by("row")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (("x_train", "y_train"), ("x_test", "y_test")),
        (("X_train", "y_train"), ("X_test", "y_test")),
        (("train_images", "train_labels"), ("test_images", "test_labels")),
        (("trainX", "trainY"), ("testX", "testY")),
    ],
)
def test_train_and_test_arrays_make_a_split_column(
    tmp_path: Path, train: tuple[str, str], test: tuple[str, str]
) -> None:
    arrays: dict[str, Any] = {train[0]: X[:30], train[1]: Y[:30], test[0]: X[30:], test[1]: Y[30:]}
    np.savez(tmp_path / "a.npz", **dict(sorted(arrays.items())))
    dataset, rows = imported(tmp_path, tmp_path / "a.npz")
    assert np.array_equal(np.array(rows["x"].to_pylist()), X.astype(np.float32))
    assert [dataset.classes[y] for y in rows["y"].to_pylist()] == Y.astype(str).tolist()
    assert rows["split"].to_pylist() == ["train"] * 30 + ["test"] * 10


def test_a_training_part_alone_has_no_split_column(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X, y_train=Y)
    assert imported(tmp_path, tmp_path / "a.npz")[0].columns == {}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_structured_arrays_are_tables(tmp_path: Path, order: str, name: str) -> None:
    kind = np.dtype([("size", f"{order}f8"), ("pixels", f"{order}u2", (2, 3)), ("who", "U3"), ("kind", "S3")])
    array = np.zeros(ROWS, kind)
    array["size"], array["pixels"] = X[:, 0], RANDOM.integers(0, 99, (ROWS, 2, 3))
    array["who"], array["kind"] = np.array(["äb", "c", "d"])[Y], np.array([b"u", b"v", b"w"])[Y]
    np.save(tmp_path / name, array) if name.endswith("npy") else np.savez(tmp_path / name, array)
    dataset, rows = imported(tmp_path, tmp_path / name, "--label", "kind", "--categorical", "who")
    assert dataset.classes == ("u", "v", "w")
    assert dataset.encoding.feature_names[-3:] == ["who=c", "who=d", "who=äb"]
    expected = np.hstack([X[:, :1], array["pixels"].reshape(ROWS, -1), np.eye(3)[[[2, 0, 1][y] for y in Y]]])
    assert np.array_equal(np.array(rows["x"].to_pylist()), expected.astype(np.float32))


@pytest.mark.parametrize("kind", ["?", "f2", ">f4", "g", "u8", "i1", "M8[s]", "m8[ms]"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_every_kind_of_number(tmp_path: Path, kind: str, order: Any, save: Any) -> None:
    array = np.asarray((10 * X).astype("i8").astype(kind) if kind != "u8" else (100 + 10 * X).astype("u8"), order=order)
    if save is np.save:
        np.save(tmp_path / "a.npy", array)
        np.save(tmp_path / "y.npy", Y)
        _, rows = imported(tmp_path, tmp_path / "a.npy", "--label", tmp_path / "y.npy")
    else:
        save(tmp_path / "a.npz", X=array, y=Y)
        _, rows = imported(tmp_path, tmp_path / "a.npz")
    expected = array.astype("i8") if kind[0] == "M" else array.astype("i8") / 1000 if kind[0] == "m" else array
    assert np.array_equal(np.array(rows["x"].to_pylist(), np.float32), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(5.0), "single number"),
        (np.empty((0, 3)), "no rows"),
        (np.empty((3, 0)), "no elements"),
        (X.astype(complex), "complex128"),
        (np.array([["a", None]] * 3, object), "never unpickled"),
        (np.array([b"xy"] * 3, "V2"), "|V2"),
        (np.zeros((3, 2), "i4,f4"), "one axis"),
        (np.zeros(3, [("a", "f4"), ("b", "O")]), "never unpickled"),
    ],
)
def test_what_is_no_matrix_is_refused(tmp_path: Path, array: Any, message: str, capsys: Any) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.save(tmp_path / "y.npy", np.arange(len(array) if array.shape else 1))
    command = ["data", "import", str(tmp_path / "a.npy"), "--label", str(tmp_path / "y.npy"), "-o", str(tmp_path / "d")]
    assert main(command) != 0
    assert message in capsys.readouterr().err


MAKE = {"csr": sp.csr_array, "csc": sp.csc_matrix, "coo": sp.coo_array}


@pytest.mark.parametrize("entries", [7, 64, 1 << 19])
@pytest.mark.parametrize("kind", list(MAKE))
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1"])
def test_sparse_matrices(tmp_path: Path, kind: str, dtype: str, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_files, "ENTRIES", entries)
    monkeypatch.setattr(sparse_files, "rows_per_chunk", lambda row_bytes: 7)
    dense = RANDOM.integers(0, 3, (ROWS, 9)).astype(dtype)
    dense[[0, 5, 6, ROWS - 1]] = 0
    matrix = MAKE[kind](dense)
    sp.save_npz(tmp_path / "a.npz", matrix, compressed=entries == 7)
    (table,) = tables(tmp_path / "a.npz")
    assert (table.columns, table.shapes, table.rows) == (("x",), {"x": (9,)}, ROWS)
    assert np.array_equal(values(table, "x"), dense)


@pytest.mark.parametrize("kind", list(MAKE))
def test_sparse_entries_that_repeat_are_added(tmp_path: Path, kind: str) -> None:
    row, column = RANDOM.integers(0, 5, 60), RANDOM.integers(0, 4, 60)
    matrix = sp.coo_array((RANDOM.standard_normal(60), (row, column)), (5, 4))
    expected = matrix.toarray()
    if kind != "coo":
        pointers = np.searchsorted(np.sort(row if kind == "csr" else column), np.arange(6 if kind == "csr" else 5))
        order = np.argsort(row if kind == "csr" else column, kind="stable")
        data = (matrix.data[order], (column if kind == "csr" else row)[order], pointers)
        matrix = (sp.csr_array if kind == "csr" else sp.csc_array)(data, shape=(5, 4))
    sp.save_npz(tmp_path / "a.npz", matrix)
    assert values(tables(tmp_path / "a.npz")[0], "x") == pytest.approx(expected, abs=1e-12)


def test_a_sparse_matrix_has_its_label_in_a_file_or_a_column(tmp_path: Path) -> None:
    dense = RANDOM.integers(0, 2, (ROWS, 9)).astype(float)
    sp.save_npz(tmp_path / "a.npz", sp.csr_array(dense))
    np.save(tmp_path / "y.npy", np.array(["no", "yes", "so"])[Y])
    dataset, rows = imported(tmp_path, tmp_path / "a.npz", "--label", tmp_path / "y.npy")
    assert np.array_equal(np.array(rows["x"].to_pylist()), dense)
    assert [dataset.classes[y] for y in rows["y"].to_pylist()] == np.array(["no", "yes", "so"])[Y].tolist()
    dataset, rows = imported(tmp_path, tmp_path / "a.npz", "--label", "-1")
    assert np.array_equal(np.array(rows["x"].to_pylist()), dense[:, :-1])
    assert [dataset.classes[y] for y in rows["y"].to_pylist()] == dense[:, -1].astype(int).astype(str).tolist()


def test_bad_labels_for_a_sparse_matrix(tmp_path: Path) -> None:
    sp.save_npz(tmp_path / "a.npz", sp.csr_array(X))
    np.save(tmp_path / "y.npy", Y[1:])
    with pytest.raises(UsageError, match="column number below 6"):
        tables(tmp_path / "a.npz", label="y")
    with pytest.raises(DataError, match="has 39 rows, the matrix has 40"):
        tables(tmp_path / "a.npz", label=str(tmp_path / "y.npy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": np.full(240, 6, np.int32)}, "outside its 6 columns"),
        ({"indices": np.full(240, -1, np.int32)}, "outside its 6 columns"),
        ({"indices": np.zeros(239, np.int32)}, "240 values for 239 indices"),
        ({"indptr": np.arange(41, dtype=np.int32)[::-1].copy()}, "do not rise"),
        ({"indptr": np.arange(41, dtype=np.int32)}, "do not rise"),
        ({"indptr": np.arange(40, dtype=np.int32)}, "40 pointers for 40 rows"),
        ({"indptr": np.full(41, 240, np.int32)}, "do not rise"),
        ({"shape": np.array([40])}, "two axes"),
        ({"shape": np.array([-40, 6])}, "two axes"),
        ({"data": X.reshape(-1).astype(complex)}, "complex"),
        ({"format": np.array(b"dia")}, "save it as CSR"),
    ],
)
def test_damaged_sparse_matrices(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    matrix = sp.csr_array(X)
    whole = {"indices": matrix.indices, "indptr": matrix.indptr, "data": matrix.data, "shape": np.array([40, 6])}
    np.savez(tmp_path / "a.npz", **(whole | {"format": np.array(b"csr")} | change))
    with pytest.raises(DataError, match=message):
        for _ in tables(tmp_path / "a.npz")[0].chunks({"x": "number"}):
            pass
