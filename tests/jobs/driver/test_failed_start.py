"""A start that fails before the first job leaves no run directory: the next try begins anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.__main__ import main
from nnlib.core.errors import NnjobsError, StorageError, UsageError


@pytest.mark.parametrize("error", [StorageError("permission denied"), UsageError("no such queue"), KeyboardInterrupt()])
def test_nothing_is_left(error: BaseException, blobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(options: object) -> None:
        raise error

    run = tmp_path / "run"
    command = ["train", "--set", f"data.path={blobs}", "--set", "train.epochs=1", "--run-dir", str(run), "-q"]
    (tmp_path / "c.yaml").write_text("name: x\n")
    command.insert(1, str(tmp_path / "c.yaml"))
    with monkeypatch.context() as patch:
        patch.setattr("jobs.mapreduce.launcher.open_session", refuse)
        assert main(command) == (error.exit_code if isinstance(error, NnjobsError) else 130)
    assert not run.exists() or not any(run.iterdir())
    assert main(command) == 0
