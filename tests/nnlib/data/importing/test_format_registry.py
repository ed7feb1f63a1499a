"""A new format is one module and one line in the table: commands, jobs, messages and recognition follow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from nnlib.core.errors import DataError
from nnlib.data.dataset import Dataset
from nnlib.data.importing.format_registry import FORMATS, InputFormat, detect_format
from nnlib.data.importing.input_files import job_formats
from nnlib.data.importing.read_options import ReadOptions


@pytest.fixture
def _with_value_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The format, by its one line; the command is imported anew, as in a new process."""
    line = InputFormat("value_lines:open_value_lines", r"\.values$", "values ", columns_in="start")
    monkeypatch.setitem(FORMATS, "values", line)
    monkeypatch.delitem(sys.modules, "jobs.commands.data", raising=False)


def values_file(folder: Path, name: str) -> str:
    (folder / name).write_text("1.5\n-2\n3\n-4.25\n")
    return str(folder / name)


def values_of(dataset: Dataset) -> list[tuple[float, str]]:
    table = pq.read_table(Path(dataset.address) / dataset.shards[0].name).sort_by("row")
    labels = [dataset.classes[y] for y in table["y"].to_pylist()]
    return [(x[0], label) for x, label in zip(table["x"].to_pylist(), labels, strict=True)]


@pytest.mark.usefixtures("_with_value_lines")
@pytest.mark.parametrize("runner", [[], ["-r", "inline"]], ids=["one process", "a job"])
@pytest.mark.parametrize(("name", "options"), [("a.values", []), ("a.data", ["--format", "values"])])
def test_a_format_of_one_line_is_imported(tmp_path: Path, name: str, options: list[str], runner: list[str]) -> None:
    command = ["data", "import", values_file(tmp_path, name), "-o", str(tmp_path / "out"), *options, *runner]
    assert main(command) == 0
    dataset = Dataset.open(str(tmp_path / "out"))
    assert dataset.encoding.feature_names == ["value"]
    assert values_of(dataset) == [(1.5, "+"), (-2.0, "-"), (3.0, "+"), (-4.25, "-")]


@pytest.mark.usefixtures("_with_value_lines")
def test_its_name_is_in_help_and_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", "--help"]) == 0
    assert "csv|npz|npy|mat|idx|parquet|arrow|svmlight|jsonl|text|images|values" in "".join(
        capsys.readouterr().out.split()
    )
    unknown = values_file(tmp_path, "a.odd")
    assert main(["data", "import", unknown, "-o", str(tmp_path / "out")]) == 3
    assert "csv, npz, npy, mat, idx, parquet, arrow, svmlight, jsonl, text, images, values" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main(["data", "import", unknown, "-o", str(tmp_path / "out"), "-r", "inline"]) == 3
    assert "--format: csv, parquet, arrow, jsonl, text, values" in " ".join(capsys.readouterr().err.split())
    assert job_formats() == ["csv", "parquet", "arrow", "jsonl", "text", "values"]


@pytest.mark.usefixtures("_with_value_lines")
def test_it_is_recognized_by_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("values 1 2")
    (tmp_path / "b").write_text("other")
    assert detect_format(str(tmp_path / "a")) == "values"
    with pytest.raises(DataError, match="its format is not recognized"):
        detect_format(str(tmp_path / "b"))


def test_every_format_names_a_function_that_opens_files() -> None:
    for name, format_ in FORMATS.items():
        with pytest.raises(DataError, match="absent"):
            format_.open([f"absent.{name}"], ReadOptions())


def test_the_table_imports_no_format() -> None:
    code = "import sys, nnlib.data.importing.format_registry as r; print({'numpy', 'pyarrow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
