"""Text files as UCI, R, numpy and MultiIndex frames write them, as pandas reads them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jobs.__main__ import main
from nnlib.data.dataset import Dataset
from nnlib.data.importing.formats.csv_lines import LineStream
from nnlib.data.importing.raw_rows import read_raw_rows
from nnlib.data.importing.read_options import BLANKS, ReadOptions

Capture = pytest.CaptureFixture[str]
FRAME = pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": [1, 2, 3], "y": ["u", "v", "u"]})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(file: str, label: str, *options: str, **pandas: Any) -> None:
    """Compare an import by one process and by jobs, and the file read again, with what pandas reads."""
    frame = pd.read_csv(file, **pandas)
    for directory, jobs in (("one", ()), ("many", ("-r", "inline"))):
        arguments = ["data", "import", file, "-o", directory, "--label", label, *options, *jobs]
        assert main(arguments) == 0
    for name in ("dataset.json", "part-00000.parquet"):
        assert Path("one", name).read_bytes() == Path("many", name).read_bytes()
    dataset = Dataset.open("one")
    rows = list(read_raw_rows(file, dataset.encoding))
    wanted = frame.drop(columns=frame.columns[-1])
    np.testing.assert_array_equal(np.concatenate([each.stored for each in rows]), wanted.to_numpy(np.float32))
    classes = [dataset.classes[index] for each in rows for index in each.y]  # type: ignore[union-attr]
    assert classes == frame[frame.columns[-1]].astype(str).tolist()


BLANK_FILES = {
    "several": "  1.0   2.0  1\n  3.0  10.0  2\n",
    "tabs and blanks": "1.0\t \t2.0  1\r\n\r\n3.0  10.0\t2  \r\n \t \r\n",
    "a comment": "# a  b\n1.0   2.0  1\n# c\n3.0  10.0  2",
    "quotes": '"1.0"   "2.0" 1\n3.0  "10.0"  2\n',
}


@pytest.mark.parametrize("name", BLANK_FILES)
def test_columns_that_stand_apart_by_blanks(name: str) -> None:
    Path("f.data").write_bytes(BLANK_FILES[name].encode())
    options = {"comment": "#"} if name == "a comment" else {}
    more = ("--comment", "#") if options else ()
    check("f.data", "-1", "--delimiter", "blanks", *more, sep=r"\s+", header=None, **options)


def test_blanks_in_quotes_stay() -> None:
    text = '"a a"  b   y\n 1 2 "x  y"\n3\t4\t"say ""hi""  u"\n5 6 "l1\n  l2  l3" \n7 8  ""\n'
    stream = io.BufferedReader(LineStream(io.BytesIO(text.encode()), ReadOptions(delimiter=BLANKS)))
    joined = pd.read_csv(stream, sep=" ", keep_default_na=False)
    assert joined.columns.tolist() == ["a a", "b", "y"]
    assert joined["y"].tolist() == ["x  y", 'say "hi"  u', "l1\n  l2  l3", ""]
    assert joined["b"].tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("1.0   2.0  1\n3.0  10.0  2\n", ()),
        ("1.0   2.0  1\n3.0  10.0  2\n", ("--delimiter", "space")),
        ("1.0   2.0  1\n3.0  10.0  2\n3.0  1.0     2\n", ("--delimiter", "space")),
    ],
)
def test_an_import_says_how_to_read_blanks(text: str, options: tuple[str, ...], capsys: Capture) -> None:
    Path("f.data").write_text(text)
    assert main(["data", "import", "f.data", "-o", "out", "--label", "-1", *options]) == 3
    assert "--delimiter blanks" in capsys.readouterr().err


LINES = "".join(f"{row},{row % 7},{row % 2}\n" for row in range(2000))
LINES_OF_BLANKS = {
    "at the beginning": f"  \n\n\t\na,b,y\n{LINES}",
    "between rows": f"a,b,y\n1,2,0\n   \n{LINES} \t \n\n",
    "late": f"\n\na,b,y\n{LINES}   \n5,6,1\n \n\n{LINES}",
    "in a large file": f"a,b,y\n{LINES * 300}   \n5,6,1\n \n\n{LINES * 200}",
    "of Windows": f"a,b,y\n1,2,0\n   \n{LINES} \t \n\n".replace("\n", "\r\n"),
}


@pytest.mark.parametrize("name", LINES_OF_BLANKS)
def test_lines_of_blanks_are_no_rows(name: str) -> None:
    Path("f.csv").write_bytes(LINES_OF_BLANKS[name].encode())
    check("f.csv", "y")


def test_what_is_wrong_after_a_line_of_blanks_is_still_said(capsys: Capture) -> None:
    for last, said in {"5,6\n": "row 2001: expected 3 columns, found 2", "5,u,1": "row 2001, column b: 'u'"}.items():
        Path("f.csv").write_text(f"a,b,y\n{LINES}   \n{last}")
        assert main(["data", "import", "f.csv", "-o", "out", "--label", "y"]) == 3
        assert said in capsys.readouterr().err


def test_labels_that_numpy_saves() -> None:
    np.savetxt("f.csv", [[1.0, 0.25, 0.5], [0.0, 1.5, 2.5], [10.0, 1.0, 3.0]], delimiter=",")
    arguments = ["data", "import", "f.csv", "--label", "0", "-o"]
    assert main([*arguments, "out"]) == 0
    assert Dataset.open("out").classes == ("0", "1", "10")
    assert main([*arguments, "new", "--map-label", "1=one", "--map-label", "0=none"]) == 0
    encoding = Dataset.open("new").encoding
    (rows,) = read_raw_rows("f.csv", encoding)
    assert rows.y is not None
    assert [encoding.classes[index] for index in rows.y] == ["one", "none", "10"]


@pytest.mark.parametrize("levels", [[["p"], [0, 1, 2]], [[5], [0, 1, 2]], [[1], [1], [0, 1, 2]]])
def test_every_level_of_an_index_is_left_out(levels: list[list[Any]], capsys: Capture) -> None:
    FRAME.set_index(pd.MultiIndex.from_product(levels)).to_csv("f.csv")
    pd.read_csv("f.csv").to_csv("again.csv", index=False)
    for file in ("f.csv", "again.csv"):
        assert main(["data", "import", file, "-o", f"of-{file}", "--label", "y"]) == 0
        assert "'Unnamed: 0', 'Unnamed: 1'" in capsys.readouterr().err
        assert Dataset.open(f"of-{file}").encoding.feature_names == ["a", "b"]
    assert main(["data", "import", "f.csv", "-o", "kept", "--label", "y", "--index", "keep"]) == (
        0 if isinstance(levels[0][0], int) else 3
    )


def test_a_boolean_among_numbers_is_named(capsys: Capture) -> None:
    Path("f.csv").write_text("a,y\n1,0\n0,1\nTrue,0\n")
    assert main(["data", "import", "f.csv", "-o", "out", "--label", "y"]) == 3
    assert "row 3, column a: 'True' is not a number" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["adult.data", "adult.test", "f.dat", "f.train"])
def test_files_of_uci_are_text(file: str) -> None:
    Path(file).write_text("39, State-gov, <=50K\n50, ?, >50K\n38, State-gov, <=50K\n")
    arguments = ["data", "import", file, "-o", "out", "--label", "-1", "--categorical", "1", "--nulls", "mean"]
    assert main(arguments) == 0
    encoding = Dataset.open("out").encoding
    assert encoding.classes == ("<=50K", ">50K")
    assert encoding.columns[1].categories == ("State-gov",)
