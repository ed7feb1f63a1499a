"""Inputs that are pipes, outputs with odd spellings: what a shell's user types, right or refused in one clear line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from product import ROOT
from refusals import contents, refused

from jobs.__main__ import main

Capture = pytest.CaptureFixture[str]
LONG = "x" * 300


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows ``x.csv``, their dataset ``ds`` and a run ``run``."""
    folder = tmp_path_factory.mktemp("odd")
    rows = "".join(f"{k % 7},{k % 5 + (k % 2) * 9},{'uv'[k % 2]}\n" for k in range(40))
    (folder / "x.csv").write_text("a,b,y\n" + rows)
    (folder / "c.yaml").write_text(f"data: {{path: {folder}/ds}}\nmodel: {{hidden: [3]}}\ntrain: {{epochs: 2}}\n")
    assert main(["data", "import", str(folder / "x.csv"), "--label", "y", "-o", str(folder / "ds")]) == 0
    assert main(["train", str(folder / "c.yaml"), "--run-dir", str(folder / "run"), "--quiet"]) == 0
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with links to what is made."""
    (tmp_path / "x.csv").write_bytes((made / "x.csv").read_bytes())
    for name in ("ds", "run", "c.yaml"):
        (tmp_path / name).symlink_to(made / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fed(pipe: str, data: bytes) -> threading.Thread:
    """A pipe, and a thread that writes data into it as soon as it is read."""
    os.mkfifo(pipe)
    feeder = threading.Thread(target=Path(pipe).write_bytes, args=[data], daemon=True)
    feeder.start()
    return feeder


def test_a_pipe_is_read_as_the_file_is(place: Path) -> None:
    data = (place / "x.csv").read_bytes()
    assert main(["predict", "run", "x.csv", "-o", "file.csv"]) == 0
    feeder = fed("pipe", data)
    assert main(["predict", "run", "pipe", "-o", "pipe.csv"]) == 0
    feeder.join(10)
    assert Path("pipe.csv").read_bytes() == Path("file.csv").read_bytes()
    feeder = fed("another", data)
    assert main(["data", "import", "another", "--format", "csv", "--label", "y", "--name", "x", "-o", "new"]) == 0
    feeder.join(10)
    assert Path("new/part-00000.parquet").read_bytes() == Path("ds/part-00000.parquet").read_bytes()


def test_an_error_names_the_pipe_and_jobs_read_none(place: Path, capsys: Capture) -> None:
    feeder = fed("pipe", b"a,b\n1,2\n1,zz\n")
    assert main(["predict", "run", "pipe", "-o", "p.csv"]) == 3
    feeder.join(10)
    assert "file pipe, row 2, column b: 'zz' is not a number" in capsys.readouterr().err
    assert main(["data", "import", "pipe", "--label", "y", "-o", "new", "-r", "inline"]) == 2
    assert "file pipe: a job cannot read a pipe" in capsys.readouterr().err
    assert not Path("new").exists()


def test_standard_input_is_a_pipe(place: Path) -> None:
    command = [sys.executable, "-m", "jobs", "predict", "run", "/dev/stdin", "-o", "-"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, input=Path("x.csv").read_bytes(), capture_output=True, env=environment, timeout=120, check=True
    )
    assert main(["predict", "run", "x.csv", "-o", "file.csv"]) == 0
    assert done.stdout == Path("file.csv").read_bytes()


def test_rows_are_not_appended_to_the_file_they_are_read_from(place: Path) -> None:
    before = Path("x.csv").read_bytes()
    command = [sys.executable, "-m", "jobs", "predict", "run", "x.csv", "-o", "-"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Path("x.csv").open("ab") as output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, env=environment, timeout=120, check=False, text=True
        )
    assert done.returncode == 2
    assert "standard output is the input, x.csv" in done.stderr
    assert Path("x.csv").read_bytes() == before


WRITERS = {
    "predict": ("predict", "run", "x.csv", "-o"),
    "predict -r": ("predict", "run", "ds", "-r", "inline", "-o"),
    "import": ("data", "import", "x.csv", "--label", "y", "-o"),
    "import -r": ("data", "import", "x.csv", "--label", "y", "-r", "inline", "-o"),
    "export": ("export", "run", "--format", "npz", "-o"),
    "report": ("report", "run", "-o"),
    "train": ("train", "c.yaml", "--quiet", "--run-dir"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_names_that_are_too_long(place: Path, capsys: Capture, name: str) -> None:
    refused(capsys, 4, *WRITERS[name], LONG, says=("name too long",))


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "report"])
def test_an_address_with_a_host_is_on_this_machine(place: Path, capsys: Capture, name: str) -> None:
    refused(capsys, 2, *WRITERS[name], f"file:{place}/new", says=(f"write file://{place}/new",))
    assert main([*WRITERS[name], f"file://localhost{place}/new"]) == 0
    assert Path("new").exists() and not Path("localhost").exists()


def test_a_host_hides_no_input(place: Path, capsys: Capture) -> None:
    refused(capsys, 2, *WRITERS["predict"], f"file://localhost{place}/x.csv", says=("-o is the input, x.csv",))


def test_a_run_directory_in_a_file(place: Path, capsys: Capture) -> None:
    refused(capsys, 4, *WRITERS["train"], "x.csv/run", says=("x.csv is a file, not a folder",))


def test_options_whose_variable_is_not_set(place: Path, capsys: Capture) -> None:
    refused(capsys, 2, *WRITERS["predict"], "p.csv", "--id", "", says=("--id names no column",))
    for option in ("--features", "--categorical", "--keep"):
        refused(capsys, 2, *WRITERS["import"], "new", option, "", says=(f"{option} names no column",))


def test_a_folder_of_predictions_may_have_a_dot_in_its_name(place: Path, capsys: Capture) -> None:
    assert main([*WRITERS["predict -r"], "model.v2"]) == 0
    assert len(pd.read_parquet("model.v2/part-00000.parquet")) == 40
    refused(capsys, 2, *WRITERS["predict -r"], "model.csv", says=("a folder of Parquet files, not csv",))


def test_a_name_and_a_format_that_differ(place: Path, capsys: Capture) -> None:
    refused(capsys, 2, *WRITERS["predict"], "p.csv", "--format", "parquet", says=("the name says csv",))
    for name, format_ in (("p.csv.zst", "csv"), ("p.jsonl.bz2", "jsonl"), ("p.parquet.gz", "parquet")):
        refused(capsys, 2, *WRITERS["predict"], name, "--format", format_, says=(f"{format_} is not written as .",))
    before = contents(place)
    assert main([*WRITERS["predict"], "p.txt", "--format", "csv"]) == 0
    assert set(contents(place)) - set(before) == {"p.txt"}
