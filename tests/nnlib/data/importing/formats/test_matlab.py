"""``.mat`` files: scipy wrote them, so it is the oracle; what only MATLAB writes is put together by hand."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from scipy.io import loadmat, savemat

from jobs.__main__ import main
from nnlib.core.errors import DataError, UsageError
from nnlib.data.dataset import Dataset
from nnlib.data.importing.formats.matlab import open_mat
from nnlib.data.importing.read_options import ReadOptions

TYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"]


def read(path: Path, *names: str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays as the importer streams them, three rows at a time."""
    (table,) = open_mat([str(path)], ReadOptions(features=names[:1], label=names[1] if names[1:] else None))
    chunks = list(table.chunks(dict.fromkeys(names, "number")))
    return {name: np.concatenate([np.asarray(chunk[name]) for chunk in chunks]) for name in names}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}], ids=["5", "7", "4"])
def test_every_type_reads_as_scipy_reads_it(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    if "format" in options and kind in ("i1", "u4", "i8", "u8", "?"):
        pytest.skip("version 4 has no such type")
    random = np.random.default_rng(1)
    shapes = [(8, 3), (1, 7), (7, 1), (2, 3, 4), (2, 2)][: 3 if "format" in options else 5]
    for shape in shapes:
        array = (100 * random.random(shape)).astype(kind)
        savemat(tmp_path / "a.mat", {"some_name": array, "other": array[:, :1].copy(), "t": "text"}, **options)
        expected = loadmat(tmp_path / "a.mat")["some_name"]
        expected = expected.T if expected.shape[0] == 1 and expected.ndim == 2 else expected
        arrays = read(tmp_path / "a.mat", "some_name")["some_name"]
        assert np.array_equal(arrays, expected.reshape(len(expected), -1).squeeze())
        assert arrays.dtype == np.dtype(kind)


def element(kind: int, data: bytes, order: str) -> bytes:
    if len(data) <= 4:
        word = struct.pack(order + "I", len(data) << 16 | kind)
        return word + data.ljust(4, b"\0")
    return struct.pack(order + "2I", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")


def matrix(name: str, shape: tuple[int, ...], flags: int, stored: bytes, order: str) -> bytes:
    parts = [
        element(6, struct.pack(order + "2I", flags, 0), order),
        element(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
        element(1, name.encode(), order),
        stored,
    ]
    return struct.pack(order + "2I", 14, sum(map(len, parts))) + b"".join(parts)


def header(order: str) -> bytes:
    mark = b"IM" if order == "<" else b"MI"
    return b"MATLAB 5.0 MAT-file, by hand".ljust(124) + struct.pack(order + "H", 0x0100) + mark


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_doubles_stored_as_bytes(tmp_path: Path, order: str, packed: bool) -> None:
    """MATLAB stores whole numbers in the smallest type that holds them; they are doubles all the same, not pixels."""
    matrices = [
        matrix("X", (3, 2), 6, element(2, bytes([1, 2, 3, 4, 5, 250]), order), order),
        matrix("y", (3, 1), 6, element(2, bytes([7, 8, 9]), order), order),
    ]
    if packed:
        matrices = [
            struct.pack(order + "2I", 15, len(data)) + data for data in (zlib.compress(plain) for plain in matrices)
        ]
    content = b"".join(matrices)
    (tmp_path / "a.mat").write_bytes(header(order) + content)
    arrays = read(tmp_path / "a.mat", "X", "y")
    assert arrays["X"].tolist() == [[1, 4], [2, 5], [3, 250]] and arrays["X"].dtype == np.float64
    assert arrays["y"].tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("shape", "flags", "stored", "reason"),
    [
        ((3, 2), 6, element(2, bytes(5), "<"), "has 5 bytes"),
        ((2**31 - 1, 2**31 - 1), 6, element(2, bytes(6), "<"), "has 6 bytes"),
        ((-3, 2), 6, element(2, bytes(6), "<"), "the sides (-3, 2)"),
        ((6,), 6, element(2, bytes(6), "<"), "the sides (6,)"),
        ((3, 2), 6, element(77, bytes(6), "<"), "numbers of type 77"),
        ((3, 2), 9, element(9, bytes(48), "<"), "stored as float64"),
        ((3, 2), 6 | 0x0800, element(2, bytes(6), "<"), "a complex array"),
        ((3, 2), 1, b"", "a cell array"),
        ((3, 2), 99, b"", "a class 99 array"),
        ((3, 2), 6, struct.pack("<2I", 2, 2**32 - 1), "has 4294967295 bytes"),
    ],
)
def test_matrices_that_lie(tmp_path: Path, shape: tuple[int, ...], flags: int, stored: bytes, reason: str) -> None:
    for content in (
        matrix("X", shape, flags, stored, "<"),
        struct.pack("<2I", 15, len(packed := zlib.compress(matrix("X", shape, flags, stored, "<")))) + packed,
    ):
        (tmp_path / "a.mat").write_bytes(header("<") + content)
        with pytest.raises(DataError, match=r"a\.mat") as caught:
            read(tmp_path / "a.mat", "X")
        assert reason in str(caught.value)


def test_compressed_data_that_goes_on_or_ends_early(tmp_path: Path) -> None:
    whole = matrix("X", (3, 2), 6, element(2, bytes(6), "<"), "<")
    cases = {
        "goes on": zlib.compress(whole + bytes(64)),
        "ends early": zlib.compress(whole)[:-8],
        "Error -3": b"x" * 30,
    }
    for reason, packed in cases.items():
        (tmp_path / "a.mat").write_bytes(header("<") + struct.pack("<2I", 15, len(packed)) + packed)
        with pytest.raises(DataError, match=reason):
            read(tmp_path / "a.mat", "X")


def imported(tmp_path: Path, *arguments: str | Path) -> tuple[Dataset, Any]:
    assert main(["data", "import", *map(str, arguments), "-o", str(tmp_path / "ds"), "--overwrite"]) == 0
    dataset = Dataset.open(str(tmp_path / "ds"))
    return dataset, pq.read_table(tmp_path / "ds" / dataset.shards[0].name).sort_by("row")


def labels(dataset: Dataset, rows: Any) -> list[str]:
    return [dataset.classes[index] for index in rows["y"].to_pylist()]


RANDOM = np.random.default_rng(2)
X = RANDOM.standard_normal((30, 4)).astype(np.float32)
Y = RANDOM.integers(0, 3, 30)
packed = pytest.mark.parametrize("do_compression", [False, True])


@packed
@pytest.mark.parametrize("row_vector", [False, True])
def test_samples_last(
    tmp_path: Path, do_compression: bool, row_vector: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = RANDOM.integers(0, 256, (5, 4, 3, 30), np.uint8)  # as the Street View House Numbers are stored
    y = Y if row_vector else Y[:, None]
    savemat(tmp_path / "a.mat", {"X": pixels, "y": y}, do_compression=do_compression)
    dataset, rows = imported(tmp_path, tmp_path / "a.mat")
    assert "along its last axis" in " ".join(capsys.readouterr().err.split())
    assert dataset.shape == (3, 5, 4)
    expected = loadmat(tmp_path / "a.mat")["X"].transpose(3, 2, 0, 1).reshape(30, -1)  # channels first
    assert np.array_equal(np.array(rows["x"].to_pylist()), expected)
    assert labels(dataset, rows) == Y.astype(str).tolist()


def test_samples_last_in_a_file_without_labels(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"X": X.T, "y": Y})
    imported(tmp_path, tmp_path / "a.mat")
    (tmp_path / "c.yaml").write_text(f"data: {{path: {tmp_path / 'ds'}}}\nmodel: {{hidden: [4]}}\n")
    assert main(["train", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run")]) == 0
    for name, array in (("first", X[:7]), ("last", X[:7].T)):
        savemat(tmp_path / f"{name}.mat", {"X": array})
        command = ["predict", str(tmp_path / "run"), str(tmp_path / f"{name}.mat"), "-o", str(tmp_path / f"{name}.csv")]
        assert main(command) == 0
    assert (tmp_path / "first.csv").read_text() == (tmp_path / "last.csv").read_text()


def test_a_square_matrix_has_its_samples_first(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"X": X[:4], "y": [0, 1, 0, 1]})
    _, rows = imported(tmp_path, tmp_path / "a.mat")
    assert np.array_equal(np.array(rows["x"].to_pylist(), np.float32), X[:4])


@packed
def test_structs(tmp_path: Path, do_compression: bool) -> None:
    savemat(tmp_path / "a.mat", {"data": {"X": X.T, "y": Y}}, do_compression=do_compression)
    turned = imported(tmp_path, tmp_path / "a.mat")[1]
    content = {"data": {"X": X, "deep": {"y": Y[:, None]}, "note": "made by hand", "empty": np.empty((0, 0))}, "z": 1}
    savemat(tmp_path / "a.mat", content, do_compression=do_compression)
    named = imported(tmp_path, tmp_path / "a.mat", "--features", "data.X", "--label", "data.deep.y")
    dataset, rows = imported(tmp_path, tmp_path / "a.mat")
    assert rows == named[1] == turned
    assert np.array_equal(np.array(rows["x"].to_pylist(), np.float32), X)
    assert labels(dataset, rows) == Y.astype(str).tolist()


@packed
@pytest.mark.parametrize("dtype", [np.float64, bool])
@pytest.mark.parametrize("empty", [False, True])
def test_sparse_matrices(tmp_path: Path, do_compression: bool, dtype: Any, empty: bool) -> None:
    dense = np.where((9 if empty else 0.3) < X, X, 0).astype(dtype)
    savemat(tmp_path / "a.mat", {"X": sp.csc_matrix(dense), "y": Y}, do_compression=do_compression)
    expected = loadmat(tmp_path / "a.mat")["X"].toarray()
    dataset, rows = imported(tmp_path, tmp_path / "a.mat")
    assert np.array_equal(np.array(rows["x"].to_pylist()), expected.astype(np.float32))
    assert labels(dataset, rows) == Y.astype(str).tolist()


@packed
@pytest.mark.parametrize("names", [["no", "yes", "maybe"], ["ä", "ßß", "日本"], ["a", "b", "c"]])
@pytest.mark.parametrize("kind", ["char", "cell"])
def test_labels_of_text(tmp_path: Path, do_compression: bool, names: list[str], kind: str) -> None:
    texts = np.array(names)[Y]
    y = texts if kind == "char" else texts.astype(object)[:, None]
    savemat(tmp_path / "a.mat", {"X": X, "y": y}, do_compression=do_compression)
    dataset, rows = imported(tmp_path, tmp_path / "a.mat")
    assert labels(dataset, rows) == texts.tolist()


def test_version_4_text(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"X": X.astype(float), "y": np.array(["no", "yes", "so"])[Y]}, format="4")
    dataset, rows = imported(tmp_path, tmp_path / "a.mat")
    assert labels(dataset, rows) == np.array(["no", "yes", "so"])[Y].tolist()


@packed
@pytest.mark.parametrize("position", range(60, 2400, 37))
def test_flipped_bytes_end_in_one_error_or_in_rows(tmp_path: Path, do_compression: bool, position: int) -> None:
    arrays = {"X": sp.csc_matrix(np.where(X > 0, X, 0)), "y": np.array(["no", "yes", "so"], object)[Y], "s": {"a": Y}}
    savemat(tmp_path / "a.mat", arrays, do_compression=do_compression)
    content = bytearray((tmp_path / "a.mat").read_bytes())
    content[128 + position % (len(content) - 128)] ^= 0xFF
    (tmp_path / "a.mat").write_bytes(content)
    try:
        read(tmp_path / "a.mat", "X")
    except (DataError, UsageError) as error:
        assert "a.mat" in str(error)
    try:
        (table,) = open_mat([str(tmp_path / "a.mat")], ReadOptions(features=("X",), label="y"))
        for chunk in table.chunks({"y": "value"}):
            assert len(chunk["y"])
    except (DataError, UsageError) as error:
        assert "a.mat" in str(error)
