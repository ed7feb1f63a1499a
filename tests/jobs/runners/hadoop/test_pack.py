"""The packed environment: equal bytes for equal inputs, small, and it runs from any folder without its origin."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.runners.hadoop import pack
from jobs.runners.hadoop.pack import ArchiveEntry, write_archive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="environments for clusters are packed on Linux")


def archive(*entries: ArchiveEntry) -> bytes:
    buffer = io.BytesIO()
    write_archive(buffer, entries)
    return buffer.getvalue()


def test_equal_inputs_equal_bytes(tmp_path: Path) -> None:
    """Whatever the order and dates of the files, and whether Python has compiled them before."""
    source = tmp_path / "module.py"
    source.write_text("VALUE = frozenset(('a', 'b', 'c'))\ndef f(x): return x in {'p', 'q', 'r'}\n", encoding="utf-8")
    other = ArchiveEntry("a/data.txt", data=b"text")
    first = archive(ArchiveEntry("m/module.py", source), other)
    os.utime(source, (1, 1))
    subprocess.run([sys.executable, "-m", "py_compile", str(source)], check=True)
    assert Path(importlib.util.cache_from_source(str(source))).exists()
    assert archive(other, ArchiveEntry("m/module.py", source)) == first


def test_the_cached_form_of_an_older_source_is_not_taken(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("VALUE = 1\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "py_compile", str(source)], check=True)
    source.write_text("VALUE = 22\n", encoding="utf-8")
    folder = unpack(archive(ArchiveEntry("module.py", source)), tmp_path / "out")
    (folder / "module.py").write_text("VALUE = 'the source is not looked at'\n", encoding="utf-8")
    done = run([sys.executable, "-c", "import module; print(module.VALUE)"], PYTHONPATH=str(folder))
    assert done == "22"


def test_what_is_no_python_is_packed_as_it_is(tmp_path: Path) -> None:
    folder = unpack(archive(ArchiveEntry("template.py", data=b"this is {{ no python }}")), tmp_path / "out")
    assert [path.name for path in folder.rglob("*")] == ["template.py"]


def test_requirements_come_along_once_and_extras_do_not() -> None:
    names = [distribution.metadata["Name"].lower().replace("_", "-") for distribution in pack.installed(pack.ROOTS)]
    assert len(set(names)) == len(names)
    assert {"numpy", "pyarrow", "pydantic-core", "certifi"} <= set(names)
    assert not {"pytest", "torch", "matplotlib", "rich"} & set(names)


def test_a_kind_of_model_brings_its_distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are another environment, packed and kept beside the usual one. (pytest stands for one that weighs more.)"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pack, "ROOTS", ("click",))
    monkeypatch.setattr(pack, "_interpreter", lambda: iter(()))
    notes: list[str] = []
    usual = pack.cached_environment(lambda note: notes.append(note.text))
    larger = pack.cached_environment(lambda note: notes.append(note.text), ("pytest",))
    assert usual != larger
    assert larger == pack.cached_environment(lambda note: notes.append(note.text), ("pytest",))
    assert [text.partition(" (")[0] for text in notes] == [
        "packing the tasks' environment",
        "packing the tasks' environment with pytest",
    ]
    assert all(re.search(r" \([\d,]+ MB before compression\), once$", text) for text in notes)
    with tarfile.open(larger[0]) as members:
        assert {"lib/pytest/__init__.py", "lib/click/__init__.py"} <= set(members.getnames())


def test_nothing_needless_is_packed() -> None:
    names = [entry.name for entry in pack.environment_entries()]
    assert len(names) == len(set(names))
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyc", ".a", ".h"))]
    assert "python/bin/" + pack.PYTHON in names
    assert not [name for name in names if name.startswith("python/") and "libc.so" in name]


def test_the_code_alone_is_an_archive_of_its_own() -> None:
    (first, one), (second, two) = pack.code_archive(), pack.code_archive()
    assert first == second
    assert one == two
    with tarfile.open(fileobj=io.BytesIO(first)) as members:
        names = members.getnames()
    assert "jobs/mapreduce/round_job.py" in names
    assert "nnlib/run/spec.py" in names


def test_it_runs_from_another_folder_in_an_empty_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "env.tar.gz"
    assert main(["pack", "-o", str(target)]) == 0
    assert pack.hash_of(target) in capsys.readouterr().out
    folder = unpack(target.read_bytes(), tmp_path / "a folder with spaces")
    target.unlink()
    program = "import sys, nnlib, numpy, pyarrow.parquet, scipy.optimize, ctypes, ssl, zmq, jobs.mapreduce.round_job; "
    program += "print(sys.prefix); print(numpy.__file__); print(nnlib.__file__); print(pyarrow.__file__)"
    shown = run([str(folder / pack.LAUNCHER), "-c", program])
    assert all(line.startswith(str(folder)) for line in shown.splitlines()), shown


def test_without_python_a_node_that_lacks_it_says_so(tmp_path: Path) -> None:
    launcher = next(entry for entry in pack.environment_entries(python=False) if entry.name == pack.LAUNCHER)
    path = tmp_path / "bin" / "python"
    path.parent.mkdir()
    path.write_bytes(launcher.data)
    path.chmod(0o755)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "dirname").symlink_to("/usr/bin/dirname")
    done = subprocess.run(["/bin/sh", str(path)], env={"PATH": str(tools)}, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert f"this node has no {pack.PYTHON}" in done.stderr


def test_no_half_archive_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(target: object, entries: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack, "write_archive", full)
    assert main(["pack", "-o", str(tmp_path / "env.tar.gz")]) == 4
    assert list(tmp_path.iterdir()) == []


def unpack(data: bytes, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        members.extractall(folder, filter="data")
    return folder


def run(command: list[str], **variables: str) -> str:
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
