"""A prediction reads a file as the import did: the very file always, and others by the names of their columns."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.__main__ import main
from nnlib.core.errors import DataError
from nnlib.core.notes import listening
from nnlib.data.dataset import Dataset
from nnlib.data.encoding import Encoding
from nnlib.data.importing.import_dataset import import_dataset
from nnlib.data.importing.import_options import ImportOptions
from nnlib.data.importing.raw_rows import read_raw_rows

Capture = pytest.CaptureFixture[str]
TRAIN = "data: {path: ds, scale: standard}\nmodel: {hidden: [3]}\ntrain: {epochs: 1}\nruntime: {runner: inline}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stored_rows(dataset: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(pq.read_table(f"{dataset}/part-00000.parquet").sort_by("row")["x"].to_pylist(), np.float64)


def read_again(file: str, encoding: Encoding, **changes: Any) -> tuple[Any, Any, list[str]]:
    """The features and labels of a file, and the notes."""
    notes: list[str] = []
    with listening(notes.append):
        chunks = list(read_raw_rows(file, encoding, changes))
    x = np.concatenate([chunk.stored for chunk in chunks]).astype(np.float64)
    return x, None if chunks[0].y is None else np.concatenate([chunk.y for chunk in chunks]), notes


def imported(text: str | bytes, **options: Any) -> Encoding:
    """The encoding, as the manifest has it, of the dataset ``ds`` made of ``f.csv``, which is read again the same."""
    Path("f.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with listening(lambda text: None):
        chosen: dict[str, Any] = {"label": "y", "overwrite": True} | options
        import_dataset(["f.csv"], "ds", ImportOptions(**chosen))
    encoding = Dataset.open("ds").encoding
    x, y, _ = read_again("f.csv", encoding)
    assert np.array_equal(x, stored_rows("ds"))
    assert np.array_equal(y, pq.read_table("ds/part-00000.parquet").sort_by("row")["y"].to_numpy())
    return encoding


VERY_FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "a header of numbers": ("0,1,label\n1.5,2.5,0\n3,4.5,1\n", {"label": "label"}),
    "a header of numbers, the label by number": ("0,1,2\n1.5,2.5,0\n3,4.5,1\n", {"label": "-1"}),
    "wavelengths": ("400.5,410.5,y\n1,2,0\n3,4,1\n", {}),
    "wavelengths, forced": ("400.5,410.5,3\n1,2,0\n3,4,1\n", {"label": "-1", "header": True}),
    "text alone": ("a,b,y\nred,big,u\nblue,small,v\n", {"categorical": ("a", "b")}),
    "text alone, no header": ("red,big,u\nblue,small,v\nred,small,u\n", {"categorical": ("0", "1"), "label": "-1"}),
    "text alone, forced": ("red,big,u\nblue,small,v\n", {"categorical": ("0", "1"), "label": "-1", "header": False}),
    "an empty header cell": ("a,,y\n1,2,0\n3,4,1\n", {}),
    "an index": (",a,y\n0,2,0\n1,4,1\n", {}),
    "an index that is kept": (",a,y\n0,2,0\n1,4,1\n", {"index": "keep"}),
    "semicolons": ("a;y\n1,5;0\n3;1\n", {"delimiter": ";", "decimal": ","}),
    "a label in the middle": ("a,y,b\n1,0,2\n3,1,4\n", {}),
    "a label in the middle, no header": ("1,0,2\n3,1,4\n", {"label": "1"}),
    "some columns, no header": ("9,1,2,0,x\n8,3,4,1,y\n", {"label": "3", "features": ("2", "1")}),
    "a comment": ("# c\na,y\n1,0\n3,1\n", {"comment": "#"}),
    "a target": ("a;y\n1;2,5\n3;4,5\n2;1\n", {"delimiter": ";", "decimal": ",", "task": "regression"}),
    "a delimiter at the end": ("a,y,\n1,0,\n3,1,\n", {}),
    "a class named NA": ("c,y\nNA,NA\nDE,DE\n", {"null_values": (), "categorical": ("c",)}),
}


@pytest.mark.parametrize("name", VERY_FILES)
def test_the_very_file_is_read_again(name: str) -> None:
    text, options = VERY_FILES[name]
    imported(text, **options)


NEW_FILES: dict[str, tuple[str, dict[str, Any], str, list[list[float]], str | None]] = {
    "another order": ("a,b,y\n1,2,0\n3,4,1\n", {}, "y,b,a\n0,2,1\n", [[1, 2]], None),
    "more columns": ("a,b,y\n1,2,0\n3,4,1\n", {}, "id,b,a\n7,2,1\n", [[1, 2]], None),
    "numbers in another order": ("0,1,y\n1,2,0\n3,4,1\n", {}, "1,0\n2,1\n", [[1, 2]], None),
    "no header": ("a,b,y\n1,2,0\n3,4,1\n", {}, "5,6,1\n7,8,0\n", [[5, 6], [7, 8]], "position"),
    "no header, no label": ("a,b,y\n1,2,0\n3,4,1\n", {}, "5,6\n7,8\n", [[5, 6], [7, 8]], "position"),
    "no header, label in the middle": ("a,y,b\n1,0,2\n3,1,4\n", {}, "5,1,6\n", [[5, 6]], "position"),
    "no header, with the columns not used": ("i,a,b,y\n9,1,2,0\n8,3,4,1\n", {"features": ("a", "b")}, "7,5,6,1\n",
                                             [[5, 6]], "position"),
    "no header, the index too": (",a,b,y\n0,1,2,0\n1,3,4,1\n", {}, "0,5,6,1\n1,7,8,0\n", [[5, 6], [7, 8]], "position"),
    "a header, where there was none": ("1,2,0\n3,4,1\n", {"label": "-1"}, "p,q\n5,6\n", [[5, 6]], "position"),
    "numbers of pandas, where there was no header": ("1.5,2,3,0\n3,4,1,1\n", {"label": "-1"}, "0,1,2,3\n5.5,6,2,1\n",
                                                     [[5.5, 6, 2]], "numbers the columns"),
    "another delimiter": ("a;b;y\n1,5;2;0\n3;4;1\n", {"delimiter": ";", "decimal": ","}, "b,a\n2,1.5\n", [[1.5, 2]],
                          "cut at ','"),
    "another delimiter, which no number has": ("a;b;y\n1.001,5;2;0\n3;4;1\n", {"delimiter": ";", "decimal": ",",
                                               "thousands": "."}, "b,a\n2,1.5\n", [[1.5, 2]], "cut at ','"),
    "a delimiter that stood between thousands": ("a;b;y\n1,001.5;2;0\n3;4;1\n", {"delimiter": ";", "thousands": ","},
                                                 "b,a\n2,1001.5\n", [[1001.5, 2]], "cut at ','"),
    "another delimiter, and points that grouped thousands": ("a;b;y\n1.001,5;2;0\n3;4;1\n", {"delimiter": ";",
        "decimal": ",", "thousands": "."}, "b\ta\n2\t1234\n", [[1234, 2]], "cut at"),
    "an index more": ("a,b,y\n1,2,0\n3,4,1\n", {}, ",a,b\n0,5,6\n", [[5, 6]], None),
    "a header of known categories": ("a,y\nred,0\nblue,1\n", {"categorical": ("a",)}, "blue\nred\n", [[1, 0], [0, 1]],
                                     "position"),
}  # fmt: skip


NEW_FILES["a category in another spelling"] = (
    "a,b,y\nTrue,1,0\nFalse,2,1\n", {"categorical": ("a",)}, "true,5\n", [[0, 1, 5]], "position"
)  # fmt: skip


@pytest.mark.parametrize("name", NEW_FILES)
def test_other_files_are_matched(name: str) -> None:
    text, options, new, rows, says = NEW_FILES[name]
    encoding = imported(text, **options)
    Path("new.csv").write_text(new)
    x, _, notes = read_again("new.csv", encoding)
    assert x.tolist() == rows
    assert any(says in note for note in notes) if says else notes == []


REFUSED: dict[str, tuple[str, str]] = {
    "a column is missing": ("a,c\n1,2\n", "lacks the feature columns b"),
    "other names": ("p,q\n1,2\n", "lacks the feature columns a, b"),
    "too many columns": ("1,2,3,4\n5,6,7,8\n", "a row has 4 numbers, the model wants 2"),
    "too few columns": ("1\n5\n", "a row has 1 numbers, the model wants 2"),
    "a header alone, without a column": ("a,c\n", "lacks the feature columns b"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_do_not_fit(name: str) -> None:
    encoding = imported("a,b,y\n1,2,0\n3,4,1\n")
    new, says = REFUSED[name]
    Path("new.csv").write_text(new)
    with pytest.raises(DataError, match=says):
        read_again("new.csv", encoding)


def test_positions_that_fit_in_two_ways_are_refused() -> None:
    encoding = imported("i,a,b,y\n9,1,2,0\n8,3,4,1\n", features=("a", "b"))
    Path("new.csv").write_text("1,2,3\n4,5,6\n")
    with pytest.raises(DataError, match="no header names them"):
        read_again("new.csv", encoding)


def test_options_of_the_user_go_first() -> None:
    encoding = imported("a;y\n1,5;0\n3;1\n", delimiter=";", decimal=",")
    Path("new.csv").write_text("a|y\n1.5|0\n")
    assert read_again("new.csv", encoding, delimiter="|", decimal=".")[0].tolist() == [[1.5]]
    Path("new.csv").write_text("1.5|0\n")
    assert read_again("new.csv", encoding, delimiter="|", decimal=".", header=False)[0].tolist() == [[1.5]]


def test_other_formats_by_name_and_by_position() -> None:
    encoding = imported("a,b,y\n1,2,0\n3,4,1\n")
    pd.DataFrame({"b": [6], "a": [5]}).to_parquet("new.parquet")
    assert read_again("new.parquet", encoding)[0].tolist() == [[5, 6]]
    np.save("new.npy", np.array([[5.0, 6.0]]))
    x, _, notes = read_again("new.npy", encoding)
    assert x.tolist() == [[5, 6]]
    assert "position" in notes[0]
    np.save("new.npy", np.array([[5.0, 6.0, 7.0]]))
    with pytest.raises(DataError, match="a row has 3 numbers, the model wants 2"):
        read_again("new.npy", encoding)


def test_a_model_of_an_earlier_version_reads_as_before() -> None:
    encoding = imported("a,,y\n1,2,0\n3,4,1\n")
    facts = encoding.to_json()
    del facts["reading"]
    facts["columns"][1]["name"] = ""  # as earlier versions called it
    earlier = Encoding.from_json(facts)
    Path("new.csv").write_text("a,,y\n1,2,0\n3,4,1\n")
    with listening(lambda text: None):
        (chunk,) = read_raw_rows("new.csv", earlier, {"header": True})
    assert chunk.x.tolist() == [[1, 2], [3, 4]]
    facts["columns"][1]["name"] = "b"
    x, _, notes = read_again("f2.csv" if Path("f2.csv").write_text("b,a\n2,1\n") else "", Encoding.from_json(facts))
    assert x.tolist() == [[1, 2]]
    assert "does not say how its files were read" in notes[0]


def test_the_command_reads_as_the_import_did(capsys: Capture) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 2)), columns=["0", "1"]).assign(label=np.arange(60) % 2)
    frame.to_csv("f.csv", sep=";", decimal=",", encoding="utf-16")
    options = ["--delimiter", ";", "--decimal", ","]
    assert main(["data", "import", "f.csv", "-o", "ds", "--label", "label", *options]) == 0
    assert "only numbers the rows" in capsys.readouterr().err
    Path("c.yaml").write_text(TRAIN)
    assert main(["train", "c.yaml", "--run-dir", "run", "--quiet"]) == 0
    frame[["label", "1", "0"]].to_csv("plain.csv", index=False)
    frame[["1", "0"]].rename(columns=str).to_parquet("p.parquet")
    Path("parts").mkdir()
    lines = Path("f.csv").read_text("utf-16").splitlines(keepends=True)
    Path("parts/a.csv.gz").write_bytes(gzip.compress("".join(lines[:31]).encode()))
    Path("parts/b.csv").write_text("".join(lines[:1] + lines[31:]))
    Path("parts/c.csv").touch()
    results = []
    files = ("ds", "f.csv", "parts", "parts/[ab].csv*", "p.parquet")
    for file, more in (*((file, []) for file in files), ("plain.csv", ["--decimal", "."])):
        capsys.readouterr()
        assert main(["predict", "run", file, "-o", "p.pq", "--json", *more]) == 0, capsys.readouterr().err
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 60
        results.append(pq.read_table("p.pq").sort_by("row")["probabilities"].to_pylist())
    assert all(result == results[0] for result in results)


cells = st.one_of(
    st.integers(-5, 5).map(str),
    st.floats(-1e6, 1e6, width=32).map(repr),
    st.sampled_from(["0", "1", "2", "3.5"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_generated_files_are_read_again_as_pandas_reads_them(data: st.DataObject) -> None:
    """Any header, delimiter, encoding, order and label: the import has pandas' values, and reads the file again so."""
    width = data.draw(st.integers(1, 4))
    name = st.sampled_from(["0", "1", "2", "400.5", "1.5", "a", "b b", "ü", "x;y", "label", "A", "p,q", '"z"'])
    names = data.draw(st.lists(name, min_size=width + 1, max_size=width + 1, unique=True))
    rows = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width), min_size=2, max_size=6))
    kinds = data.draw(st.sampled_from([["u", "v"], ["0", "1"], ["no", "yes"]]))
    place = data.draw(st.integers(0, width))
    for number, row in enumerate(rows):
        row.insert(place, kinds[number % 2])
    delimiter = data.draw(st.sampled_from([",", ";", "\t", "|"]))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    header = data.draw(st.booleans())
    index = header and data.draw(st.booleans())
    frame = pd.DataFrame(rows, columns=names, dtype=object)
    frame.to_csv("f.csv", sep=delimiter, encoding=encoding, header=header, index=index)
    options: dict[str, Any] = {"delimiter": delimiter, "header": header}
    if encoding == "latin-1":
        options["encoding"] = encoding
    label = names[place] if header else str(place)
    stored = imported(Path("f.csv").read_bytes(), label=label, **options)
    read = pd.read_csv(
        "f.csv", sep=delimiter, encoding=encoding, header=0 if header else None, index_col=0 if index else None,
        float_precision="round_trip",
    )  # fmt: skip
    label_name = label if header else place
    features = read.drop(columns=label_name)
    assert stored.feature_names == [str(name) for name in features.columns]
    assert np.array_equal(stored_rows("ds"), features.to_numpy(np.float64).astype(np.float32)) or (
        stored.dtype == "float64" and np.array_equal(stored_rows("ds"), features.to_numpy(np.float64))
    )
    if header:
        shuffled = data.draw(st.permutations(names))
        frame[shuffled].to_csv("g.csv", sep=delimiter, encoding=encoding, index=index)
        assert np.array_equal(read_again("g.csv", stored)[0], stored_rows("ds"))


@pytest.mark.parametrize("new", ["a\tb\n1.234\t2\n", "a;b\n0.125;2\n"])
def test_a_point_is_not_taken_for_thousands_where_it_may_be_decimal(new: str) -> None:
    encoding = imported("a;b;y\n1.001,5;2;0\n3;4;1\n", delimiter=";", decimal=",", thousands=".")
    Path("new.csv").write_text(new)
    with pytest.raises(DataError, match="is not a number"):
        read_again("new.csv", encoding)
