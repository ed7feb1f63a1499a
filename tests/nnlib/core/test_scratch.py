"""Temporary folders: gone at the end, and after a process that was killed with the next one's start."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import started

from nnlib.core import scratch
from nnlib.core.errors import StorageError
from nnlib.core.scratch import scratch_folder

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the system must tell when processes started")

HOLD = """
from nnlib.core.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "file").write_text("x")
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextlib.contextmanager
def holder() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds a folder until a line is sent to it."""
    command = [sys.executable, "-c", HOLD]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_at_the_end(parent: Path) -> None:
    with scratch_folder() as folder:
        (folder / "file").write_text("x")
        assert folder.parent == parent and folder.name.startswith("nnjobs-")
    assert list(parent.iterdir()) == []


@LINUX
def test_what_a_killed_process_left_goes_with_the_next_start(parent: Path) -> None:
    with holder() as (process, folder):
        with scratch_folder():
            assert (folder / "file").exists()  # its process lives
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert folder.exists()
    with scratch_folder():
        assert not folder.exists()


@LINUX
def test_what_is_not_surely_a_dead_process_of_ours_stays(parent: Path) -> None:
    with scratch_folder() as own:
        found = re.fullmatch(r"nnjobs-([0-9a-f]{8})-(\d+)-([0-9a-f]{8})-.*", own.name)
    assert found is not None and int(found[2]) == os.getpid()
    place = found[1]
    kept = ["nnjobs-abc", "nnjobs-shards-0", f"nnjobs-{'0' * 8}-999999999-{'0' * 8}-x", "other", f"nnjobs-{place}-1-x"]
    for name in kept:
        (parent / name).mkdir()
    (parent / f"nnjobs-{place}-999999999-{'0' * 8}-file").write_text("no folder")
    (parent / "target").mkdir()
    (parent / f"nnjobs-{place}-999999999-{'0' * 8}-link").symlink_to(parent / "target")
    reused = parent / f"nnjobs-{place}-{os.getpid()}-{'0' * 8}-x"  # our number, but another start
    reused.mkdir()
    with scratch_folder() as own:
        names = {path.name for path in parent.iterdir()}
    assert not reused.exists() and (parent / "target").exists()
    assert {*kept, own.name} < names


def test_where_the_system_tells_nothing_nothing_is_swept(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "process_started", lambda process: None)
    monkeypatch.setattr(scratch, "_namespace", lambda: None)
    (parent / f"nnjobs-{'0' * 8}-999999999-{'0' * 8}-x").mkdir()
    with scratch_folder():
        assert len(list(parent.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_a_typed_error(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(parent / "absent"))
    with pytest.raises(StorageError, match="cannot make a temporary folder"), scratch_folder():
        pass
