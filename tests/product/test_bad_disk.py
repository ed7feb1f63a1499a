"""Disks that fail in the middle of a run: full, read-only, replaced, gone. The run ends with exit code 4 and says what
to do; when that is repaired, --resume gives the bits of a run that was never stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from shards import write_dataset

import nnlib.storage.fault_hook
from jobs.__main__ import main
from nnlib.data.decoded_rows import BLOCKS
from nnlib.run.checkpoint import Checkpoint
from nnlib.run.spec import JobSpec
from nnlib.training.advance import advance
from nnlib.training.round_result import TrialOutput

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, a configuration of four rounds, and a run of it that was never stopped."""
    folder = tmp_path_factory.mktemp("disk")
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 80)
    x = (rng.normal(size=(80, 3)) + 2 * y[:, None]).astype(np.float32)
    write_dataset(folder / "d", x, y, shards=2, classes=2)
    (folder / "c.yaml").write_text(
        f"data: {{path: {folder}/d}}\nworkers: 2\nmodel: {{hidden: [4]}}\ntrain: {{epochs: 4, epochs_per_round: 1}}\n"
    )
    assert main(["train", str(folder / "c.yaml"), "--run-dir", str(folder / "whole"), "--quiet"]) == 0
    return folder


def model(run: Path) -> str:
    return str(json.loads((run / "final" / "metrics.json").read_text())["model_sha256"])


def names(run: Path) -> set[str]:
    """The files of a run but for those that only say who works on it, and how far that is."""
    paths = (path.relative_to(run) for path in run.rglob("*"))
    return {str(path) for path in paths if path.parts[0] not in ("lock", "status.json")}


@contextmanager
def at(monkeypatch: pytest.MonkeyPatch, part: str, failure: Callable[[], object]) -> Iterator[None]:
    """Let ``failure`` happen once, before the first change to a file whose path holds ``part``."""
    happened: list[Path] = []

    def step(action: str, path: Path) -> None:
        if part in str(path) and not happened:
            happened.append(path)
            failure()

    with monkeypatch.context() as patch:
        patch.setattr(nnlib.storage.fault_hook, "step", step)
        yield
    assert happened, f"nothing was written to {part}"


def stopped_and_resumed(
    place: Path,
    run: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    failure: Callable[[], object],
    repair: Callable[[], object],
    *reasons: str,
) -> None:
    """Train into ``run``, let it fail at ``part``, repair, resume: the model is that of the undisturbed run."""
    capsys.readouterr()
    with at(monkeypatch, part, failure):
        code = main(["train", str(place / "c.yaml"), "--run-dir", str(run), "--quiet"])
    told = capsys.readouterr().err
    assert code == 4, told
    assert "Traceback" not in told and len(told.splitlines()) <= 6
    for reason in (*reasons, "what to do"):
        assert reason in told, told
    repair()
    assert main(["train", "--resume", "--run-dir", str(run), "--quiet"]) == 0, capsys.readouterr().err
    assert model(run) == model(place / "whole")
    assert names(run) == names(place / "whole")


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[str], None]]:
    """A disk of its own at ``folder``; yields how to mount it anew with other options. Needs root."""

    def mount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", "none", str(folder)], check=True, capture_output=True)

    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small disk here (needs root): {error}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


# Where a run of four rounds is when its disk fails: within a round's files, at the commit, at the end.
MOMENTS = ["rounds/000002/.model", "rounds/000003/.manifest", "final/.metrics"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_full_disk(
    place: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 512):
        filler = disk / "filler"

        def fill() -> None:
            with filler.open("wb", buffering=0) as stream:
                try:
                    while stream.write(bytes(4096)):
                        pass
                except OSError:
                    return

        stopped_and_resumed(
            place, disk / "run", capsys, monkeypatch, moment, fill, filler.unlink, "No space left", "--resume"
        )


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_goes_read_only(
    place: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 512) as mount:
        stopped_and_resumed(
            place, disk / "run", capsys, monkeypatch, moment, lambda: mount("ro"), lambda: mount("rw"),
            "Read-only file system", "--resume",
        )  # fmt: skip


def test_an_import_to_a_full_disk_leaves_nothing(tmp_path: Path, capsys: Capture) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 64):
        command = ["data", "synth", "--kind", "blobs", "--rows", "20000", "-o", str(disk / "set")]
        assert main(command) == 4
        told = capsys.readouterr().err
        assert "No space left" in told and "what to do" in told and "Traceback" not in told
        assert not [path for path in disk.rglob("*") if path.is_file()]


def test_a_prediction_to_a_full_disk_leaves_nothing(place: Path, tmp_path: Path, capsys: Capture) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 4):
        assert main(["predict", str(place / "whole"), str(place / "d"), "-o", str(disk / "p.parquet")]) == 4
        assert "No space left" in capsys.readouterr().err
        assert not list(disk.iterdir())


@pytest.mark.parametrize("moment", ["rounds/000002/.model", "final/.metrics"])
def test_a_file_where_a_folder_should_be(
    place: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """What a read-only folder is to a user, this is to root, whom permissions do not bind."""
    run = tmp_path / "run"
    folder = run / moment.rpartition("/")[0]

    def replace() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.write_text("not a folder")

    stopped_and_resumed(place, run, capsys, monkeypatch, moment, replace, folder.unlink, str(folder), "--resume")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission(
    place: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stopped_and_resumed(
        place, run, capsys, monkeypatch, "rounds/000002", lambda: (run / "rounds").chmod(0o500),
        lambda: (run / "rounds").chmod(0o700), "Permission denied", "--resume",
    )  # fmt: skip


@pytest.mark.parametrize("moment", ["rounds/000002/.trials", "rounds/000003/.manifest"])
def test_a_run_that_is_moved_away(
    place: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    run, away = tmp_path / "run", tmp_path / "away"
    stopped_and_resumed(
        place, run, capsys, monkeypatch, moment, lambda: run.rename(away), lambda: away.rename(run), str(run)
    )


def test_a_run_that_is_moved_away_between_two_commits(
    place: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next commit must not begin a new folder with half a run in it."""
    run, away = tmp_path / "run", tmp_path / "away"

    def leave(spec: JobSpec, before: Checkpoint, outputs: Mapping[int, TrialOutput]) -> Checkpoint:
        if before.round == 2:
            run.rename(away)
        return advance(spec, before, outputs)

    with monkeypatch.context() as patch:
        patch.setattr("jobs.driver.driver.advance", leave)
        assert main(["train", str(place / "c.yaml"), "--run-dir", str(run), "--quiet"]) == 4
    told = capsys.readouterr().err
    assert "round 2 is there no more" in told and "--resume" in told
    assert not run.exists()
    away.rename(run)
    assert main(["train", "--resume", "--run-dir", str(run), "--quiet"]) == 0
    assert model(run) == model(place / "whole")


def test_a_shard_that_is_damaged_between_two_runs(place: Path, tmp_path: Path, capsys: Capture) -> None:
    """Resuming finds a shard that changed meanwhile; with the old one back, it goes on to the same bits."""
    data, run = tmp_path / "d", tmp_path / "run"
    shutil.copytree(place / "d", data)
    command = ["train", str(place / "c.yaml"), "--set", f"data.path={data}", "--run-dir", str(run), "--quiet"]
    assert main([*command, "--set", "train.epochs=2"]) == 0
    shard = data / "part-00001.parquet"
    whole = shard.read_bytes()
    BLOCKS.clear()  # as in a new process: this one still holds the decoded rows
    shard.write_bytes(whole[:400] + bytes([whole[400] ^ 1]) + whole[401:])
    capsys.readouterr()
    assert main([*command, "--resume"]) == 3
    assert "part-00001.parquet" in capsys.readouterr().err
    shard.write_bytes(whole)
    assert main([*command, "--resume"]) == 0
    assert model(run) == model(place / "whole")
