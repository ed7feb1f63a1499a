"""Files of the svmlight format, against scikit-learn's reader."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

import nnlib
from jobs.__main__ import main
from nnlib.core.errors import DataError
from nnlib.data.dataset import Dataset
from nnlib.data.importing.format_registry import detect_format, open_tables
from nnlib.data.importing.formats import svmlight
from nnlib.data.importing.read_options import ReadOptions

RANDOM = np.random.default_rng(5)
ROWS, WIDTH = 60, 12
X = np.where(RANDOM.random((ROWS, WIDTH)) < 0.3, RANDOM.standard_normal((ROWS, WIDTH)), 0)
X[:, WIDTH - 1] = 1.5
Y = RANDOM.integers(0, 3, ROWS)


def written(path: Path, x: Any = X, y: Any = Y, **options: Any) -> Path:
    dump_svmlight_file(x, y, str(path), **({"zero_based": False} | options))
    return path


def imported(tmp_path: Path, *arguments: str | Path) -> tuple[Dataset, Any]:
    assert main(["data", "import", *map(str, arguments), "-o", str(tmp_path / "ds"), "--overwrite"]) == 0
    dataset = Dataset.open(str(tmp_path / "ds"))
    return dataset, pq.read_table(tmp_path / "ds" / dataset.shards[0].name).sort_by("row")


def oracle(file: Path) -> Any:
    return load_svmlight_file(str(file), n_features=WIDTH, zero_based=False)[0].toarray()


def features(file: Path | str, **options: Any) -> Any:
    (table,) = open_tables([str(file)], ReadOptions(format="svmlight", **options))
    return np.concatenate([chunk["x"] for chunk in table.chunks({"x": "number"})])


@pytest.mark.parametrize("zero_based", [True, False])
@pytest.mark.parametrize("name", ["a.libsvm", "a.svm", "a.svmlight", "a", "a.txt"])
def test_a_file_is_read_as_scikit_learn_reads_it(tmp_path: Path, name: str, zero_based: bool) -> None:
    file = written(tmp_path / name, zero_based=zero_based)
    assert detect_format(str(file)) == "svmlight"
    dataset, rows = imported(tmp_path, file)
    x, y = load_svmlight_file(str(file), zero_based="auto")
    assert np.array_equal(np.array(rows["x"].to_pylist(), np.float32), x.toarray().astype(np.float32))
    assert [float(dataset.classes[index]) for index in rows["y"].to_pylist()] == y.tolist()
    assert dataset.features == WIDTH


@pytest.mark.parametrize("block", [1, 50, 333, 1 << 20])
def test_blocks_of_any_size_and_chunks_of_few_rows(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svmlight, "BLOCK_BYTES", block)
    monkeypatch.setattr(svmlight, "rows_per_chunk", lambda row_bytes: 7)
    file = written(tmp_path / "a.svm")
    assert np.array_equal(features(file), oracle(file))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_comments_blanks_and_query_numbers(tmp_path: Path, end: str) -> None:
    lines = [
        "# made by hand",
        "",
        "+1  qid:3\t1:0.5 4:-2e-1 # the first",
        "-1 qid:3",
        "  ",
        "+1 qid:12 2:nan 3:1 ",
        "#",
    ]
    (tmp_path / "a.svm").write_bytes(end.join(lines).replace("nan", "7").encode())
    dataset, rows = imported(tmp_path, tmp_path / "a.svm")
    expected, y, qid = load_svmlight_file(
        io.BytesIO("\n".join(lines).replace("nan", "7").encode()), query_id=True, zero_based=False
    )
    assert np.array_equal(np.array(rows["x"].to_pylist()), expected.toarray().astype(np.float32))
    assert [float(dataset.classes[index]) for index in rows["y"].to_pylist()] == y.tolist()
    assert rows["qid"].to_pylist() == qid.tolist()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files(tmp_path: Path, pack: Any) -> None:
    (tmp_path / "a.libsvm.packed").write_bytes(pack(written(tmp_path / "a").read_bytes()))
    assert detect_format(str(tmp_path / "a.libsvm.packed")) == "svmlight"
    assert np.array_equal(features(tmp_path / "a.libsvm.packed"), oracle(tmp_path / "a"))


def test_regression_targets_keep_their_digits(tmp_path: Path) -> None:
    targets = RANDOM.standard_normal(ROWS)
    (tmp_path / "a.svm").write_text("".join(f"{target!r} 1:{i}\n" for i, target in enumerate(targets.tolist())))
    dataset, rows = imported(tmp_path, tmp_path / "a.svm")
    assert dataset.task == "regression"
    assert rows["y"].to_pylist() == targets.tolist()


def test_several_files_are_as_wide_as_the_widest(tmp_path: Path) -> None:
    narrow = written(tmp_path / "a.svm", X[:, :5])
    wide = written(tmp_path / "b.svm")
    _, rows = imported(tmp_path, narrow, wide)
    expected = sp.vstack([sp.csr_matrix(np.pad(X[:, :5], ((0, 0), (0, WIDTH - 5)))), sp.csr_matrix(X)]).toarray()
    assert np.array_equal(np.array(rows["x"].to_pylist(), np.float32), expected.astype(np.float32))


@pytest.fixture
def model(tmp_path: Path) -> Any:
    written(tmp_path / "train.svm")
    imported(tmp_path, tmp_path / "train.svm")
    (tmp_path / "c.yaml").write_text(f"data: {{path: {tmp_path / 'ds'}}}\nmodel: {{hidden: [4]}}\n")
    assert main(["train", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run")]) == 0
    return nnlib.load(str(tmp_path / "run"))


def predicted(tmp_path: Path, file: Path) -> Any:
    output = tmp_path / "p.parquet"
    assert main(["predict", str(tmp_path / "run"), str(file), "-o", str(output)]) == 0
    table = pq.read_table(output)
    return table["class"].to_pylist() if "class" in table.column_names else table.column(1).to_pylist()


def test_predictions_of_narrower_and_wider_files(
    tmp_path: Path, model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def expected(x: Any) -> list[str]:
        return [str(name) for name in model.predict(x.astype(np.float32))]

    assert predicted(tmp_path, tmp_path / "train.svm") == expected(X)
    narrow = np.where(np.arange(WIDTH) < 4, X, 0)
    assert predicted(tmp_path, written(tmp_path / "narrow.svm", narrow[:, :4])) == expected(narrow)
    capsys.readouterr()
    wide = np.hstack([X, np.ones((ROWS, 3))])
    assert predicted(tmp_path, written(tmp_path / "wide.svm", wide)) == expected(X)
    assert f"left out {3 * ROWS} values of features beyond the {WIDTH}" in " ".join(capsys.readouterr().err.split())


def test_indices_mean_at_prediction_what_they_meant_at_import(tmp_path: Path, model: Any) -> None:
    """A file without index 0 could be counted from 0 or 1: the dataset's own rule decides, not the file."""
    assert predicted(tmp_path, written(tmp_path / "shifted.svm", np.roll(X, 1, axis=1), zero_based=False)) == [
        str(name) for name in model.predict(np.roll(X, 1, axis=1).astype(np.float32))
    ]
    zero = written(tmp_path / "zero.svm", X + 1, zero_based=True)
    assert main(["predict", str(tmp_path / "run"), str(zero), "-o", str(tmp_path / "z.parquet")]) == 3


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("1:2 3:4", ("has no label",)),
        ("1,2 3:4", ("several labels",)),
        ("1 3:4 5", ("no row of the svmlight format",)),
        ("1 3:4 5:", ("no row of the svmlight format",)),
        ("1 3:x", ("no row of the svmlight format",)),
        ("1 3.5:1", ("no row of the svmlight format",)),
        ("1 3::1", ("no row of the svmlight format",)),
        ("1 qid:x 3:1", ("no row of the svmlight format",)),
        ("1 3:1 3:2", ("index 3 twice",)),
        ("1 2:1 3:1 2:5", ("index 2 twice",)),
        ("1 99999999999999999999:1", ("no row of the svmlight format",)),
        ("1 -3:1", ("an index below 1",)),
        ("\xff 3:1", ("not UTF-8",)),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, line: str, parts: tuple[str, ...]) -> None:
    content = f"1 1:1 # fine\n\n0 2:1\n{line}\n1 1:1\n".encode("latin-1")
    (tmp_path / "a.svm").write_bytes(content)
    with pytest.raises(DataError, match="row 3") as caught:
        features(tmp_path / "a.svm")
    assert all(part in str(caught.value) for part in ("a.svm", *parts))


def test_values_that_are_missing_or_infinite_name_their_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.svm").write_text("1 1:1\n0 2:nan\n")
    assert main(["data", "import", str(tmp_path / "a.svm"), "-o", str(tmp_path / "d")]) == 3
    said = capsys.readouterr().err
    assert all(part in said for part in ("row 2", "x[1]", "missing"))


@pytest.mark.parametrize("content", [b"", b"\n\n# nothing\n", b"1\n0\n"])
def test_files_without_features(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.svm").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.svm"):
        features(tmp_path / "a.svm")


def test_unsorted_indices_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.svm").write_text("1 3:3 1:1\n0 2:2\n")
    assert features(tmp_path / "a.svm").tolist() == [[1, 0, 3], [0, 2, 0]]
