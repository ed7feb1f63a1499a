"""Outputs never destroy what is not ours: every command that writes, against every way to name the wrong place."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from product import ROOT
from refusals import contents, refused

from jobs.__main__ import main
from jobs.runners.hadoop import pack
from nnlib.run.lease import RunLock
from nnlib.storage import LocalStorage
from nnlib.storage.output_folder import NOTHING, claimed_folder

Capture = pytest.CaptureFixture[str]
CONFIG = (
    "data: {path: ds, scale: standard}\nworkers: 1\nmodel: {hidden: [3]}\nname: small\n"
    "train: {epochs: 2, epochs_per_round: 1, batch_size: 8}\nevaluate: {workers: [1]}\n"
)


@dataclass(frozen=True)
class Case:
    """A command that writes: its arguments (``OUT`` stands for the output) and what it reads."""

    arguments: str
    inputs: tuple[str, ...]
    foreign: str = ""
    """What it would write into a folder; empty: it writes a file."""

    def call(self, output: str) -> list[str]:
        return [output if word == "OUT" else word for word in self.arguments.split()]


IMPORT = Case("data import in/x.csv --label y -o OUT", ("in/x.csv",), "part-00000.parquet")
CASES = {
    "import": IMPORT,
    "import -r": Case(f"{IMPORT.arguments} -r inline", IMPORT.inputs, IMPORT.foreign),
    "synth": Case("data synth --kind blobs --rows 20 -o OUT", (), "part-00000.parquet"),
    "predict": Case("predict run in/x.csv -o OUT", ("run", "in/x.csv")),
    "import a pattern": Case("data import in/*.csv --label y -o OUT", ("in/x.csv",), "part-00000.parquet"),
    "predict a pattern": Case("predict run in/*.csv -o OUT", ("in/x.csv",)),
    "predict a dataset": Case("predict run ds -o OUT --format csv", ("run", "ds")),
    "predict -r": Case("predict run ds -o OUT -r inline", ("run", "ds"), "part-00000.parquet"),
    "export": Case("export run --format npz -o OUT", ("run",)),
    "report": Case("report run again -o OUT", (), "report.html"),
    "pack": Case("pack -o OUT", ("in/packed.py",)),
    "train": Case("train c.yaml --quiet --run-dir OUT", ("ds", "c.yaml"), "config.yaml"),
    "train --from": Case("train c.yaml --quiet --from run --run-dir OUT", ("ds", "c.yaml", "run"), "rounds"),
    "evaluate": Case("evaluate c.yaml --no-report -o OUT", ("ds", "c.yaml"), "results.json"),
    "scale": Case("scale c.yaml --workers 1 -o OUT", ("ds", "c.yaml"), "scale.json"),
    "simulate": Case("simulate c.yaml --workers 1 --seconds 1 --check 1 -o OUT", ("ds", "c.yaml"), "scale.json"),
}
FILES = {name: case for name, case in CASES.items() if not case.foreign} | {
    "report": Case("report run -o OUT", ("run/rounds/000000",))
}
FOLDERS = {name: case for name, case in CASES.items() if case.foreign}
FULL = pytest.mark.full
QUICK_FOLDERS = [name for name in FOLDERS if name not in ("simulate", "scale", "evaluate")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file ``in/x.csv``, a dataset ``ds`` of it, a run ``run`` and a second one, a configuration ``c.yaml``."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "in").mkdir()
    rows = "".join(f"{k % 7},{k % 5 + (k % 2) * 9},{'uv'[k % 2]}\n" for k in range(40))
    (folder / "in/x.csv").write_text("a,b,y\n" + rows)
    (folder / "in/packed.py").write_text("pass\n")
    (folder / "c.yaml").write_text(CONFIG)
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["data", "import", "in/x.csv", "--label", "y", "-o", "ds", "--shards", "2"]) == 0
        for run in ("run", "again"):
            assert main(["train", "c.yaml", "--run-dir", run, "--quiet"]) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "place"
    shutil.copytree(made, folder)
    for run in ("run", "again"):  # a run says where its dataset was
        assert (folder / run / "spec.json").exists()
    monkeypatch.chdir(folder)
    entries = [pack.ArchiveEntry("x.py", folder / "in/packed.py")]
    monkeypatch.setattr(pack, "environment_entries", lambda *_, **options: entries)
    monkeypatch.setattr(pack, "code_entries", lambda _="": [])
    yield folder


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("output", ["", " ", "file://"])
def test_an_empty_output_is_no_name_of_the_current_folder(place: Path, capsys: Capture, name: str, output: str) -> None:
    refused(capsys, 2, *CASES[name].call(output), says=("empty",))


def test_empty_addresses_of_other_options(place: Path, capsys: Capture) -> None:
    refused(capsys, 2, "cluster", "start", "--dir", "", says=("empty",))
    refused(capsys, 2, "train", "c.yaml", "--from", "", "--run-dir", "new", says=("empty",))
    for text in ("data: {path: ''}", "data: {path: ds}\nrun_dir: ''", "data: {path: ds}\nrun_dir: ' '"):
        Path("bad.yaml").write_text(text + "\n")
        refused(capsys, 2, "train", "bad.yaml", says=("bad.yaml", "is empty"))


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda source: source,
    "dots": lambda source: f"in/..//./{source}",
    "absolute": lambda source: str(Path(source).absolute()),
    "file://": lambda source: f"file://{Path(source).absolute()}",
    "link": lambda source: _link(source),
    "hard link": lambda source: _hard_link(source),
    "in it": lambda source: f"{source}/new" if Path(source).is_dir() else _link(source),
    "above it": lambda source: str(Path(source).parent) if "/" in source else ".",
}


def _link(source: str) -> str:
    Path("link").symlink_to(source)
    return "link"


def _hard_link(source: str) -> str:
    if Path(source).is_dir():
        return f"{source}/."
    Path("hard").hardlink_to(source)
    return "hard"


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("name", "source"), [(name, source) for name, case in CASES.items() for source in case.inputs])
def test_an_output_never_touches_an_input(place: Path, capsys: Capture, name: str, source: str, spelling: str) -> None:
    refused(capsys, 2, *CASES[name].call(SPELLINGS[spelling](source)))


def test_a_report_lies_in_its_run_and_no_deeper(place: Path, capsys: Capture) -> None:
    before = contents(Path("run"))
    refused(capsys, 2, "report", "run", "-o", "run/rounds/x.html", says=("lies in an input",))
    refused(capsys, 2, "report", "run", "again", "-o", "run/final", says=("lies in an input",))
    for arguments in (["run"], ["run", "-o", "run"], ["run", "-o", "run/other.html"]):
        assert main(["report", *arguments]) == 0
    now = contents(Path("run"))
    assert {name: now[name] for name in before} == before
    Path("run/report.html").write_text("the user's")
    refused(capsys, 2, "report", "run", says=("report.html", "another program"))
    shutil.rmtree("run/figures")
    Path("page").mkdir()
    Path("page/figures").mkdir()
    figure = next(name for name in now if name.startswith("figures/"))
    Path("page", figure).write_text("the user's")
    refused(capsys, 2, "report", "run", "-o", "page", says=(figure, "another program"))


def test_an_export_replaces_no_file_that_nobody_named(place: Path, capsys: Capture) -> None:
    Path("run.npz").write_text("the user's")
    refused(capsys, 2, "export", "run", "--format", "npz", says=("run.npz", "no model card"))
    Path("other.npz.card.md").write_text("the user's")
    refused(
        capsys, 2, "export", "run", "--format", "npz", "-o", "other.npz", says=("other.npz.card.md", "not one of ours")
    )
    for _ in range(2):  # our own is replaced
        assert main(["export", "run", "--format", "safetensors"]) == 0


@pytest.mark.parametrize("name", FILES)
class TestFiles:
    @staticmethod
    def output(name: str) -> str:
        return "out.html" if name == "report" else "out"

    def test_a_link_is_written_through_and_the_mode_stays(self, place: Path, name: str) -> None:
        out = Path(self.output(name))
        Path("far").mkdir()
        target = Path("far/target.html")
        target.write_text("old")
        target.chmod(0o600)
        out.symlink_to(target)
        assert main(FILES[name].call(str(out))) == 0
        assert out.is_symlink() and target.is_file() and not target.is_symlink()
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert target.read_bytes() not in (b"old", b"")
        assert [path.name for path in Path("far").iterdir()] == ["target.html"]

    def test_a_fifo_is_written_into(self, place: Path, name: str) -> None:
        out = Path(self.output(name))
        os.mkfifo(out)
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(out.read_bytes()), daemon=True)
        reader.start()
        before = set(os.listdir())
        assert main(FILES[name].call(str(out))) == 0
        reader.join(20)
        assert stat.S_ISFIFO(out.stat().st_mode) and set(os.listdir()) == before
        other = f"second{out.suffix}"
        assert main(FILES[name].call(other)) == 0
        assert len(read) == 1 and len(read[0]) == len(Path(other).read_bytes())

    def test_devices_stay(self, place: Path, name: str) -> None:
        before = set(os.listdir("/dev"))
        assert main(FILES[name].call("/dev/null")) == 0
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode) and set(os.listdir("/dev")) == before

    def test_a_folder_is_no_file(self, place: Path, capsys: Capture, name: str) -> None:
        if name != "report":
            Path("folder").mkdir()
            for output in ("folder", ".", "..", "folder/"):
                refused(capsys, 2 if "." in output or "/" in output else 4, *FILES[name].call(output))


@pytest.mark.parametrize("name", [name for name in FILES if name != "report"])
def test_standard_output_stays_what_it_is(place: Path, name: str) -> None:
    """``(echo head; nnjobs ... -o /dev/stdout; echo tail) > file`` keeps all three."""
    if name == "pack":
        pytest.skip("takes many seconds without the fixture's short list of files")
    with Path("all").open("wb") as stream:
        stream.write(b"head\n")
        stream.flush()
        subprocess.run(
            [sys.executable, "-m", "jobs", *FILES[name].call("/dev/stdout")],
            stdout=stream,
            stderr=subprocess.DEVNULL,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        os.write(stream.fileno(), b"tail\n")
    whole = Path("all").read_bytes()
    assert whole.startswith(b"head\n") and whole.endswith(b"tail\n") and len(whole) > 50
    assert Path("/dev/stdout").is_symlink()


@pytest.mark.parametrize("name", FOLDERS)
def test_files_of_others_in_a_folder_stay(place: Path, capsys: Capture, name: str) -> None:
    case = FOLDERS[name]
    out = Path("out")
    out.mkdir()
    (out / case.foreign).write_text("the user's")
    (out / ".their.tmp").write_text("the user's")
    code = 3 if name == "predict -r" else 2
    refused(capsys, code, *case.call("out"), says=(case.foreign,))
    if case.arguments.startswith("data"):
        refused(capsys, code, *case.call("out"), "--overwrite", says=(case.foreign,))


@pytest.mark.parametrize(
    "name", [*QUICK_FOLDERS, *(pytest.param(name, marks=FULL) for name in FOLDERS if name not in QUICK_FOLDERS)]
)
def test_other_files_in_a_folder_do_not_matter(place: Path, name: str) -> None:
    out = Path("out")
    out.mkdir()
    others = {"notes.txt": b"1", ".their.tmp": b"2", ".lock.01ab.tmp": b"3"}
    for other, content in others.items():
        (out / other).write_bytes(content)
    assert main(FOLDERS[name].call("out")) == 0
    assert {other: (out / other).read_bytes() for other in others} == others
    assert not [path.name for path in out.iterdir() if path.name.startswith(".nnjobs")]


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "report"])
def test_of_two_at_once_the_second_is_refused(place: Path, capsys: Capture, name: str) -> None:
    files = LocalStorage("out")
    holding = RunLock(files) if name.startswith("train") else claimed_folder(files, NOTHING)
    with holding:
        refused(capsys, 4, *FOLDERS[name].call("out"), says=(f"process {os.getpid()}",))


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_not_made_of_a_file(place: Path, capsys: Capture, name: str) -> None:
    Path("file").write_text("the user's")
    refused(capsys, 4, *FOLDERS[name].call("file"))


def test_a_prediction_that_fails_leaves_the_old_file(place: Path, capsys: Capture) -> None:
    Path("bad.csv").write_text("a,b,y\n1,2,u\n1,what,v\n")
    Path("out.csv").write_text("old")
    refused(capsys, 3, "predict", "run", "bad.csv", "-o", "out.csv", says=("bad.csv",))


def test_completion_writes_to_standard_output_alone(place: Path, capsys: Capture) -> None:
    before = contents(Path())
    assert main(["completion", "bash"]) == 0
    assert contents(Path()) == before


def test_an_earlier_evaluation_goes_on(place: Path, capsys: Capture) -> None:
    """Its folder may hold what a new one's may not: what was made stays good."""
    assert main(["scale", "c.yaml", "--workers", "1", "-o", "study"]) == 0
    shutil.copy("c.yaml", "study/c.yaml")
    assert main(["scale", "study/c.yaml", "--workers", "1", "-o", "study"]) == 0
    Path("study/scale.json").unlink()  # as after a kill
    assert main(["scale", "study/c.yaml", "--workers", "1", "-o", "study"]) == 0
    assert Path("study/scale.json").exists()


def test_the_reader_of_the_output_goes_away(place: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m jobs predict run in/x.csv -o /dev/stdout | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, check=False, env=environment)
    assert done.returncode == 0 and b"Traceback" not in done.stderr and done.stderr.count(b"\n") < 5
