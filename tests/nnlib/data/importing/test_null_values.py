"""What means a missing value: as pandas has it, with blanks around it, in columns of every use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from jobs.__main__ import main
from nnlib.core.errors import DataError
from nnlib.data.dataset import Dataset
from nnlib.data.encoding import Encoding
from nnlib.data.importing.null_values import EARLIER, USUAL
from nnlib.data.importing.raw_rows import read_raw_rows

Capture = pytest.CaptureFixture[str]


def imported(source: Path, *more: str, label: str = "y") -> Dataset:
    command = ["data", "import", str(source), "-o", f"{source}-d", "--overwrite", "--label", label, *more]
    assert main(command) == 0
    return Dataset.open(f"{source}-d")


def test_the_usual_marks_are_those_of_pandas_and_a_question_mark() -> None:
    assert set(USUAL) == STR_NA_VALUES | {"?"}
    assert len(USUAL) == len(set(USUAL))
    assert set(EARLIER) < set(USUAL)


@pytest.mark.parametrize("blanks", ["{}", " {}", "{} ", "  {}   ", '"{}"', '" {} "'])
@pytest.mark.parametrize("mark", USUAL)
def test_a_mark_is_missing_in_every_column(mark: str, blanks: str, tmp_path: Path) -> None:
    cell = blanks.format(mark)
    path = tmp_path / "t.csv"
    path.write_text(f"n,c,k,y\n1,red,u,0\n3,blue,v,1\n{cell},{cell},{cell},1\n")
    dataset = imported(path, "--categorical", "c", "--keep", "k", "--nulls", "mean")
    assert dataset.encoding.columns[1].categories == ("blue", "red")
    table = pq.read_table(tmp_path / "t.csv-d" / "part-00000.parquet").to_pandas().sort_values("row")
    assert table["k"].isna().to_list() == [False, False, True]
    assert np.stack(table["x"])[2].tolist() == [2.0, 0.5, 0.5]
    frame = pd.read_csv(path, skipinitialspace=True, na_values=["?"]).apply(
        lambda column: column.map(lambda value: np.nan if isinstance(value, str) and value.strip() in USUAL else value)
    )
    assert frame.loc[2, ["n", "c", "k"]].isna().all()  # pandas does not trim behind a mark
    path.write_text(f"n,y\n1,0\n2,1\n3,{cell}\n")
    with pytest.raises(DataError, match="row 3, column y: the label is missing"):
        imported_error(path)


def imported_error(path: Path) -> None:
    from nnlib.data.importing.import_dataset import import_dataset
    from nnlib.data.importing.import_options import ImportOptions

    import_dataset([str(path)], f"{path}-e", ImportOptions(label="y"))


def test_the_uci_adult_rows(tmp_path: Path) -> None:
    path = tmp_path / "adult.data.csv"
    path.write_text(
        "39, State-gov, Bachelors, <=50K\n50, ?, Bachelors, >50K\n38, Private, ?, <=50K\n?, Private, HS, >50K\n"
    )
    dataset = imported(path, "--categorical", "1,2", "--nulls", "mean", "--no-header", label="3")
    assert dataset.classes == ("<=50K", ">50K")
    assert [column.categories for column in dataset.encoding.columns] == [
        (), ("Private", "State-gov"), ("Bachelors", "HS")
    ]  # fmt: skip
    assert dataset.encoding.columns[0].fill == pytest.approx(((39 + 50 + 38) / 3,))


def test_marks_of_ones_own_and_none(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "t.csv"
    path.write_text("n,country,y\n1,NA,NA\n2,-,EU\n3,FR,EU\n-9,FR,NA\n")
    dataset = imported(path, "--categorical", "country", "--null-values", "none", "--nulls", "mean")
    assert dataset.classes == ("EU", "NA")
    assert dataset.encoding.columns[1].categories == ("-", "FR", "NA")
    assert dataset.encoding.columns[0].fill == pytest.approx(((1 + 2 + 3 - 9) / 4,))
    dataset = imported(path, "--categorical", "country", "--null-values", "-,-9", "--nulls", "mean")
    assert dataset.classes == ("EU", "NA")
    assert dataset.encoding.columns[1].categories == ("FR", "NA")
    assert dataset.encoding.columns[0].fill == (2.0,)
    (rows,) = read_raw_rows(str(path), dataset.encoding)  # predictions know the marks
    assert rows.y is not None
    assert rows.y.tolist() == [1, 0, 0, 1]
    assert np.allclose(rows.x.reshape(-1), [1, 0, 1, 2, 2 / 3, 1 / 3, 3, 1, 0, 2, 1, 0])
    capsys.readouterr()
    assert main(["data", "import", str(path), "-o", str(tmp_path / "e"), "--label", "y", "--features", "n"]) == 3
    assert "--null-values none" in capsys.readouterr().err


@pytest.mark.parametrize("runner", [(), ("-r", "inline")])
def test_typed_files_say_themselves_what_is_missing(runner: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame = pd.DataFrame(
        {"n": [1.0, -9.0, 3.0, None], "i": [1, 2, -9, 4], "c": ["NA", "x", " ? ", None], "y": list("abab")}
    )
    frame.to_parquet(path)
    dataset = imported(path, "--categorical", "c", "--nulls", "mean", *runner)
    assert dataset.encoding.columns[2].categories == ("?", "NA", "x")
    assert dataset.encoding.columns[0].fill == pytest.approx(((1 - 9 + 3) / 3,))
    dataset = imported(path, "--categorical", "c", "--nulls", "mean", "--null-values", "?,-9", *runner)
    assert dataset.encoding.columns[2].categories == ("NA", "x")
    assert dataset.encoding.columns[0].fill == (2.0,)
    assert dataset.encoding.columns[1].fill == pytest.approx((7 / 3,))
    (rows,) = read_raw_rows(str(path), dataset.encoding)
    assert np.allclose(rows.x[1:3].reshape(-1), [2, 2, 0, 1, 3, 7 / 3, 0.5, 0.5])


def test_numpy_files_with_marks(tmp_path: Path) -> None:
    x = np.array([[1, -9], [2, 4], [3, 6]], np.int16)
    np.savez(tmp_path / "t.npz", X=x, y=np.array(["a", "b", "a"]))
    dataset = imported(tmp_path / "t.npz", "--nulls", "mean", "--null-values", "-9")
    assert dataset.encoding.columns[0].fill == (2.0, 5.0)


def test_models_of_earlier_versions_read_with_the_marks_of_then(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("n,c,y\n1,None,0\n2,<NA>,1\n3,x,1\n")
    dataset = imported(path, "--categorical", "c", "--null-values", ",?")
    assert dataset.encoding.columns[1].categories == ("<NA>", "None", "x")
    data = dataset.encoding.to_json()
    del data["reading"]
    with pytest.warns(UserWarning, match="does not say how its files were read"):
        (rows,) = read_raw_rows(str(path), Encoding.from_json(data))
    assert rows.x.tolist() == [[1, 0, 1, 0], [2, 1, 0, 0], [3, 0, 0, 1]]
