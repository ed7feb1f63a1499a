"""Every command ends as it would otherwise, whatever the shell did: exit code, outputs and files are the same."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
from product import ROOT
from shell_commands import CALLS, SLOW, Call, commands, make_scene
from shell_conditions import CONDITIONS, Condition, Outcome, outcome

from nnlib.core.standard_streams import ERRORS

FULL_DISK = 4
USUAL = Condition()
WORST = "no streams"
TYPICAL = (
    "no standard output",
    "output on a full disk",
    "no reader at all",
    "in the background",
    "an ASCII system",
    "no HOME",
    "an ASCII terminal",
    "a terminal of 1 column",
    "a terminal that hangs up",
)
SAMPLE = {("predict", condition) for condition in TYPICAL} | {(name, WORST) for name in CALLS if name not in SLOW}
"""What runs without ``--full``: one call under typical conditions, every quick call under the worst."""

Run = Callable[[str, Condition], tuple[Outcome, dict[str, bytes]]]


def cases() -> list[object]:
    every = [(name, condition) for name in CALLS for condition in CONDITIONS]
    return [
        pytest.param(*case, id=f"{case[0]}-{case[1]}", marks=() if case in SAMPLE else pytest.mark.full)
        for case in every
    ]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where calls work, always at the same path, and a copy of it from which it is made again."""
    parent = tmp_path_factory.mktemp("shells")
    scene, kept = parent / "scene", parent / "kept"
    scene.mkdir()
    make_scene(scene)
    shutil.copytree(scene, kept)
    return scene, kept


def renewed(scenes: tuple[Path, Path]) -> Path:
    scene, kept = scenes
    shutil.rmtree(scene)
    return Path(shutil.copytree(kept, scene))


@pytest.fixture
def scene(scenes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return renewed(scenes)


@pytest.fixture(scope="module")
def run(scenes: tuple[Path, Path]) -> Run:
    """Runs a call under a condition in a fresh scene; what it did, and the files that are there afterwards."""

    def run(name: str, condition: Condition) -> tuple[Outcome, dict[str, bytes]]:
        scene = renewed(scenes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))
            done = outcome(CALLS[name].command, condition, scene)
        return done, files(scene, CALLS[name])

    return run


@pytest.fixture(scope="module")
def usual(run: Run) -> Callable[[str], tuple[Outcome, dict[str, bytes]]]:
    """What a call does in an ordinary shell."""
    known: dict[str, tuple[Outcome, dict[str, bytes]]] = {}

    def usual(name: str) -> tuple[Outcome, dict[str, bytes]]:
        if name not in known:
            known[name] = run(name, USUAL)
        return known[name]

    return usual


def files(folder: Path, call: Call) -> dict[str, bytes]:
    """The files below a folder by their names; of those that differ from call to call only the names count."""
    return {
        path.relative_to(folder).as_posix(): b""
        if any(fnmatch(path.relative_to(folder).as_posix(), pattern) for pattern in call.varying)
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def comparable(text: bytes, encoding: str = "utf-8") -> str:
    """A stream's text without numbers, which are often times, and frames, as a terminal of this encoding shows it."""
    frames = "[\N{BOX DRAWINGS LIGHT HORIZONTAL}-\N{BOX DRAWINGS HEAVY UP AND LIGHT DOWN}]"
    shown = re.sub(frames, " ", text.decode()).encode(encoding, ERRORS).decode(encoding)
    return " ".join(re.sub(r"[-+]?[0-9][0-9.,:e+-]*", "#", re.sub(r"[-+|=]{2,}|[|]", " ", shown)).split())


def test_the_table_calls_every_command() -> None:
    forgotten = [words for words in commands() if not any(f"{name} ".startswith(f"{words} ") for name in CALLS)]
    assert forgotten == [], "add a call of it to tests/helpers/shell_commands.py"


@pytest.mark.parametrize(("name", "condition"), cases())
def test_a_command_ends_as_it_would_otherwise(
    run: Run, usual: Callable[[str], tuple[Outcome, dict[str, bytes]]], name: str, condition: str
) -> None:
    expected, expected_files = usual(name)
    chosen = CONDITIONS[condition]
    done, made = run(name, chosen)
    lost = chosen.full and expected.code == 0 and expected.stdout
    assert done.code == (FULL_DISK if lost else expected.code), done
    assert made.keys() == expected_files.keys()
    assert [file for file in made if made[file] != expected_files[file]] == []
    for stream in ("stdout", "stderr"):
        if stream not in chosen.hidden and not lost:
            encoding = "utf-8" if stream == "stdout" and CALLS[name].prints_data else chosen.encoding
            shown = getattr(done, stream).decode(encoding)
            wanted = comparable(getattr(expected, stream), encoding)
            assert comparable(shown.encode()) == wanted
    assert b"Traceback" not in done.stderr + done.stdout


LIBRARY = """
import pathlib, sys
import numpy as np
from jobs.driver import driver
from nnlib.config.load import load_config
from nnlib.sklearn import NNJobsClassifier

assert [sys.stdin, sys.stdout, sys.stderr] == [None] * 3, "as under pythonw"
x = np.random.default_rng(0).normal(size=(80, 3))
model = NNJobsClassifier(hidden_layer_sizes=(3,), max_iter=2, random_state=0, verbose=True).fit(x, x[:, 0] > 0)
assert model.predict(x).shape == (80,)
driver.train(load_config("c.yaml", ["run_dir=new", "runtime.runner=local"]))
"""


def test_the_library_needs_no_streams(scene: Path) -> None:
    done = outcome([sys.executable, "-c", LIBRARY], CONDITIONS[WORST], scene)
    assert done.code == 0
    model = "final/model.safetensors"
    assert (scene / "new" / model).read_bytes() == (scene / "base" / model).read_bytes()


IN_A_DELETED_FOLDER = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'


def test_a_deleted_current_folder(scene: Path) -> None:
    """Commands that name files by whole paths work; of others one line says what is wrong."""
    calls = {
        ("predict", f"{scene}/base", f"{scene}/rows.csv", "-o", f"{scene}/predicted.parquet"): 0,
        ("train", f"{scene}/c.yaml", "--run-dir", f"{scene}/new", "-r", "local", "--quiet"): 0,
        ("data", "verify", "ds"): 2,
        ("train", f"{scene}/c.yaml"): 2,
    }
    for arguments, code in calls.items():
        done = outcome([sys.executable, "-m", "jobs", *arguments], Condition(IN_A_DELETED_FOLDER), scene)
        assert done.code == code, done.stderr
        assert b"unexpected" not in done.stderr
        assert (b"the current folder was deleted" in done.stderr) == (code == 2), done.stderr
