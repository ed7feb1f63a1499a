"""CSV files of other people, as pandas reads them with the options of the same meaning."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from nnlib.core.errors import DataError, UsageError
from nnlib.data.dataset import Dataset
from nnlib.data.importing.format_registry import open_tables
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.read_options import ReadOptions

Capture = pytest.CaptureFixture[str]
BASE = "a,b,y\n1,2.5,0\n3,4,1\n5,7.25,0\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def imported(*arguments: str) -> pd.DataFrame:
    """The features of a dataset that the command makes of files, and its labels in the column ``label``."""
    assert main(["data", "import", *arguments, "-o", "out", "--overwrite"]) == 0
    dataset = Dataset.open("out")
    table = pq.read_table("out/part-00000.parquet").sort_by("row")
    frame = pd.DataFrame(table["x"].to_pylist(), columns=dataset.encoding.feature_names, dtype=float)
    y = table["y"].to_pylist()
    return frame.assign(label=[dataset.classes[index] for index in y] if dataset.classes else y)


def expected(file: Any, label: str, **options: Any) -> pd.DataFrame:
    """The same as pandas reads it."""
    frame = pd.read_csv(file, **options)
    return frame.drop(columns=label).astype(float).assign(label=frame[label])


SAME: dict[str, tuple[bytes, tuple[str, ...], dict[str, Any]]] = {
    "plain": (BASE.encode(), (), {}),
    "semicolons and decimal commas": (
        b"a;b;y\n1,5;2;0\n3;-4,25e1;1\n",
        ("--delimiter", ";", "--decimal", ","),
        {"sep": ";", "decimal": ","},
    ),
    "a tab by name": (b"a\tb\ty\n1\t2\t0\n3\t4\t1\n", ("--delimiter", "tab"), {"sep": "\t"}),
    "thousands": (
        b'a,b,y\n"1,234",2,0\n3,"-4,000,000.5",1\n',
        ("--thousands", ","),
        {"thousands": ","},
    ),
    "thousands and decimals of Europe": (
        b"a;b;y\n1.234,5;2;0\n3;4.000.000;1\n",
        ("--delimiter", "semicolon", "--thousands", ".", "--decimal", ","),
        {"sep": ";", "decimal": ",", "thousands": "."},
    ),
    "Latin-1": ("a,größe,y\n1,2,0\n3,4,1\n".encode("latin-1"), ("--encoding", "latin-1"), {"encoding": "latin-1"}),
    "Windows": ("a,€,y\n1,2,0\n3,4,1\n".encode("cp1252"), ("--encoding", "cp1252"), {"encoding": "cp1252"}),
    "UTF-16": (BASE.encode("utf-16"), (), {"encoding": "utf-16"}),
    "UTF-16 without a mark": (BASE.encode("utf-16-be"), ("--encoding", "utf-16-be"), {"encoding": "utf-16-be"}),
    "UTF-32": (BASE.encode("utf-32"), (), {"encoding": "utf-32"}),
    "comments": (b"# a, b\na,b,y\n1,2,0\n# between\n3,4,1\n# end", ("--comment", "#"), {"comment": "#"}),
    "carriage returns": (BASE.replace("\n", "\r").encode(), (), {}),
    "both line ends": (BASE.replace("\n", "\r\n").encode(), (), {}),
    "single quotes": (b"a,'b,c',y\n'1','2',0\n3,4,1\n", ("--quote", "'"), {"quotechar": "'"}),
    "an index": (b",a,y\n0,2,0\n1,4,1\n", (), {"index_col": 0}),
    "an index of a file read with its index": (b",Unnamed: 0,a,y\n0,0,2,0\n1,1,4,1\n", (), {"index_col": [0, 1]}),
    "row names of R": (b'"a" "y"\n"1" 2 0\n"2" 4 1\n', ("--delimiter", "space"), {"sep": " "}),
    "an index that is kept": (b",a,y\n0,2,0\n1,4,1\n", ("--index", "keep"), {}),
    "a column without a name": (b"a,,y\n1,2,0\n3,4,1\n", (), {}),
    "a delimiter at every end": (b"a,b,y,\n1,2,0,\n3,4,1,\n", (), {"usecols": ["a", "b", "y"]}),
    "a delimiter at the end of rows": (b"a,b,y\n1,2,0,\n3,4,1,\n", (), {"index_col": False}),
    "blanks around numbers": (b"a, b ,y\n 1, 2 ,0\n3 ,4,1\n", (), {"skipinitialspace": True, "names": ["a", "b", "y"],
                                                                  "header": 0}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_as_pandas_reads_it(name: str) -> None:
    content, arguments, options = SAME[name]
    Path("f.csv").write_bytes(content)
    result = imported("f.csv", "--label", "y", *arguments)
    pd.testing.assert_frame_equal(result, expected("f.csv", "y", **options).assign(
        label=lambda frame: frame["label"].astype(str)), check_index_type=False,
        check_names=False, obj=name) if name not in ("an index", "an index of a file read with its index",
        "row names of R") else np.testing.assert_array_equal(
        result["a"], expected("f.csv", "y", **options)["a"])  # fmt: skip


def _zip(**members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_", "."), text)
    return stream.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "two gzip streams": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    "zip": lambda data: _zip(data_csv=data.decode()),
}


@pytest.mark.parametrize("file", ["f.csv", "f.bin"])
@pytest.mark.parametrize("name", PACKED)
def test_compression_is_recognized_by_content(name: str, file: str) -> None:
    Path("plain.csv").write_text(BASE)
    Path(file).write_bytes(PACKED[name](BASE.encode()))
    more = ("--format", "csv") if file == "f.bin" and name != "zip" else ()
    assert imported(file, "--label", "y", *more).equals(imported("plain.csv", "--label", "y"))


def test_a_zip_of_several_files_is_all_of_them(capsys: Capture) -> None:
    Path("f.zip").write_bytes(_zip(b_csv="b,y,a\n20,1,10\n", a_csv=BASE, README_txt="hello", c_csv=""))
    assert imported("f.zip", "--label", "y")["a"].tolist() == [1, 3, 5, 10]
    Path("g.zip").write_bytes(_zip(a_csv=BASE, b_csv="a,c,y\n1,2,3\n"))
    assert main(["data", "import", "g.zip", "-o", "no", "--label", "y"]) == 3
    assert "g.zip:b.csv: has other columns than g.zip:a.csv" in capsys.readouterr().err
    Path("h.zip").write_bytes(_zip(a_png="x"))
    assert main(["data", "import", "h.zip", "-o", "no", "--label", "y"]) == 3


def test_a_parquet_file_named_csv_is_read_as_what_it_is() -> None:
    Path("plain.csv").write_text(BASE)
    pd.read_csv("plain.csv").to_parquet("f.csv", index=False)
    assert imported("f.csv", "--label", "y").equals(imported("plain.csv", "--label", "y"))


@pytest.mark.parametrize("jobs", [(), ("-r", "inline")], ids=["one process", "jobs"])
@pytest.mark.parametrize("sources", [("parts",), ("parts/*.csv",), ("part?",), ("parts/a.csv", "parts/c.csv")])
def test_folders_patterns_and_empty_parts(sources: tuple[str, ...], jobs: tuple[str, ...], capsys: Capture) -> None:
    Path("parts").mkdir()
    Path("parts/_SUCCESS").touch()
    Path("parts/.hidden.csv").write_text("no,columns\n")
    Path("parts/a.csv").write_text("a;y\n1,5;0\n2;1\n")
    Path("parts/c.csv").write_text("y;a\n1;3\n0;4\n")
    Path("parts/0.csv").touch()
    Path("parts/b.csv").write_text("a;y\n")
    options = ("--label", "y", "--delimiter", ";", "--decimal", ",", *jobs)
    frame = imported(*sources, *options)
    assert frame["a"].tolist() == [1.5, 2, 3, 4]
    assert frame["label"].tolist() == ["0", "1", "1", "0"]
    said = capsys.readouterr().err
    assert ("0.csv: skipped" in said) == ("b.csv: skipped" in said) == (len(sources) == 1)


def test_jobs_make_the_bytes_of_one_process_with_every_option() -> None:
    Path("parts").mkdir()
    text = '# note\n;a;größe;y;\n0;1.234,5;x;ja;\n1;-;"y\nz";nein;\n2;7;x;ja;\n'
    Path("parts/a.csv").write_bytes(gzip.compress(text.encode("latin-1")))
    Path("parts/b.csv").write_bytes(text.encode("utf-16"))
    Path("parts/c.csv").write_bytes(_zip(x_csv="")[:0])
    options = ["--label", "y", "--delimiter", ";", "--decimal", ",", "--thousands", ".", "--encoding", "latin-1",
               "--comment", "#", "--null-values", "-", "--nulls", "mean", "--categorical", "größe"]  # fmt: skip
    assert main(["data", "import", "parts", "-o", "one", *options]) == 0
    assert main(["data", "import", "parts", "-o", "many", *options, "-r", "inline"]) == 0
    for name in ("dataset.json", "part-00000.parquet"):
        assert Path("one", name).read_bytes() == Path("many", name).read_bytes()
    assert Dataset.open("one").encoding.feature_names == ["a", "größe=x", "größe=y\nz"]


HEADERS: dict[str, tuple[str, str, list[str]]] = {
    "numbers and the label": ("0,1,label\n1.5,2.5,0\n3,4.5,1\n", "label", ["0", "1"]),
    "numbers and a label of text": ("0,1,kind\n1.5,2.5,u\n3.5,4.5,v\n3.5,4.5,v\n3.5,4.5,u\n", "-1", ["0", "1"]),
    "the numbers of pandas": ("0,1,2,3\n1.5,2,7,0\n3,4.5,1,1\n", "-1", ["0", "1", "2"]),
    "wavelengths": ("400.5,410.5,420.5,kind\n1.5,2.5,2,u\n3,4.5,1,v\n", "-1", ["400.5", "410.5", "420.5"]),
    "many wavelengths": (
        ",".join(str(400 + k * k) for k in range(9)) + "\n" + "5,3,1,2,9,4,1,7,0\n5,3,1,2,9,4,1,7,1\n",
        "-1",
        [str(400 + k * k) for k in range(8)],
    ),
    "text alone": ("colour,kind\nred,u\nblue,v\nred,u\n", "-1", ["colour=blue", "colour=red"]),
    "no header, numbers": ("1,2,0\n3,4,1\n", "-1", ["0", "1"]),
    "no header, numbers in order in every row": ("1,2,3\n3,4,5\n1,2,4\n", "-1", ["0", "1"]),
    "no header, whole numbers that count": ("0,1,2\n1,0,5\n", "-1", ["0", "1"]),
    "no header, flowers": ("5.1,3.5,1.4,u\n6.0,2.9,4.5,v\n4.9,3.0,1.4,w\n", "-1", ["0", "1", "2"]),
    "no header, text": ("red,u\nblue,v\nred,u\nred,v\n", "-1", ["0=blue", "0=red"]),
    "no header, dates": ("2024-01-31,u\n2024-02-01,v\n2024-02-01,w\n", "-1", ["0=2024-01-31", "0=2024-02-01"]),
    "dates as names": ("kind,2024-01-31,2024-02-29\nu,1,2\nv,3,4\n", "kind", ["2024-01-31", "2024-02-29"]),
    "a name that means missing": ("NA,B,y\n1,2,0\n3,4,1\n", "y", ["NA", "B"]),
}


@pytest.mark.parametrize("name", HEADERS)
def test_what_is_a_header(name: str) -> None:
    text, label, names = HEADERS[name]
    Path("f.csv").write_text(text)
    categorical = ("--categorical", "0") if "=" in names[0] else ()
    frame = imported("f.csv", "--label", label, *categorical)
    assert frame.columns.tolist()[:-1] == names
    assert len(frame) == len(text.splitlines()) - (not name.startswith("no header"))


@pytest.mark.parametrize(("text", "is_doubtful"), [
    ("1,5;2;0\n2,5;3;1\n", True),
    ("a,b;c,d\n1,2;3,0\n4,5;6,1\n", False),  # cut at ';', there would be fewer columns
    ("a,b\nx;y,0\nx,1\n", False),
    ("a,b\n1,0\n2,1\n", False),
])  # fmt: skip
def test_another_delimiter_that_fits_as_well_is_said(text: str, is_doubtful: bool, capsys: Capture) -> None:
    Path("f.csv").write_text(text)
    main(["data", "import", "f.csv", "-o", "out", "--label", "-1", "--categorical", "0"])
    assert ("--delimiter ';' if it is that" in capsys.readouterr().err) is is_doubtful


BAD: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "number": ("a,b,y\n1,x,0\n", {}, "'x' is not a number"),
    "decimal comma": ("a;b;y\n1,5;2;0\n", {"delimiter": ";"}, "--decimal"),
    "decimal point": ("a;b;y\n1.5;2;0\n", {"delimiter": ";", "decimal": ","}, "'1.5' is not a number"),
    "thousands": ('a,b,y\n"1,23",2,0\n', {"thousands": ","}, "'1,23' is not a number"),
    "decoding": (b"a,b,y\n\x81,2,0\n", {"encoding": "cp1252"}, "try another --encoding"),
    "an open comment mark": ("a,b,y\n1,2,0\n#x\n", {}, "row 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_named(name: str) -> None:
    content, options, says = BAD[name]
    Path("f.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"f\.csv") as caught:
        import_dataset(["f.csv"], "out", ImportOptions(label="y", **options))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"encoding": "no-such"}, {"encoding": "rot13"}, {"quote": ",", "delimiter": ","}, {"thousands": "."}],
)
def test_bad_options(options: dict[str, Any]) -> None:
    Path("f.csv").write_text(BASE)
    with pytest.raises(UsageError):
        import_dataset(["f.csv"], "out", ImportOptions(label="y", **options))


@pytest.mark.parametrize("mark", ["--delimiter", "--quote", "--decimal", "--thousands"])
def test_marks_are_one_character(mark: str, capsys: Capture) -> None:
    Path("f.csv").write_text(BASE)
    assert main(["data", "import", "f.csv", "-o", "out", "--label", "y", mark, "ab"]) == 2
    assert mark in capsys.readouterr().err


def test_marks_of_missing_values() -> None:
    Path("f.csv").write_text("country,b,y\nNA,-1,NA\nDE,,DE\nFR,3,NA\n")
    options = ("--label", "y", "--categorical", "country", "--nulls", "mean")
    frame = imported("f.csv", *options, "--null-values", "none")
    assert frame["country=NA"].tolist() == [1, 0, 0]
    assert frame["label"].tolist() == ["NA", "DE", "NA"]
    assert frame["b"].tolist() == [-1, 1, 3]
    assert imported("f.csv", *options, "--null-values", "-1")["b"].tolist() == [3, 3, 3]


@pytest.mark.parametrize("jobs", [(), ("-r", "inline")], ids=["one process", "jobs"])
def test_index_columns_of_parquet(jobs: tuple[str, ...], capsys: Capture) -> None:
    frame = pd.DataFrame({"a": [1.0, 2, 3], "y": [0, 1, 0]})
    frame.index = pd.Index([7, 8, 9], name="id")
    frame.to_parquet("named.parquet")
    frame.set_index(pd.Index([5, 7, 6])).to_parquet("unnamed.parquet")
    frame.set_index([pd.Index([1, 1, 2], name="k"), pd.Index([1, 2, 1])]).to_parquet("levels.parquet")
    frame.reset_index(drop=True).to_parquet("range.parquet")
    for name, left_out in {"named": "'id'", "unnamed": "'__index_level_0__'", "levels": "'k', '__index_level_1__'",
                           "range": None}.items():  # fmt: skip
        capsys.readouterr()
        assert list(imported(f"{name}.parquet", "--label", "y", *jobs)) == ["a", "label"]
        said = capsys.readouterr().err
        assert ("the rows and" in said) == (left_out is not None)
        assert left_out is None or f"{left_out} only number" in said
    assert "id" in list(imported("named.parquet", "--label", "y", "--index", "keep", *jobs))
    assert "id" in list(imported("named.parquet", "--label", "y", "--features", "a,id", *jobs))


def test_a_single_column_whose_name_holds_another_delimiter(tmp_path: Path) -> None:
    (tmp_path / "both.csv").write_text("pipe|d,y\n1,0\n2,1\n3,0\n4,1\n")
    assert main(["data", "import", str(tmp_path / "both.csv"), "-o", str(tmp_path / "data"), "--label", "y"]) == 0
    (tmp_path / "one.csv").write_text("pipe|d\n5\n6\n")
    options = ReadOptions(likely_features=("pipe|d",))
    tables = open_tables([str(tmp_path / "one.csv")], options)
    assert tables[0].columns == ("pipe|d",)
    (tmp_path / "comma.csv").write_text("a,b\n1,5\n2,0\n")
    tables = open_tables([str(tmp_path / "comma.csv")], ReadOptions(delimiter=";", decimal=","))
    assert tables[0].columns == ("a,b",)
    (tmp_path / "cut.csv").write_text("a|b\n5|6\n7|8\n")
    with pytest.raises(DataError, match="one column only"):
        open_tables([str(tmp_path / "cut.csv")], ReadOptions())
