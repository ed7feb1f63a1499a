"""What every refusal of the command must be: its exit code, one screen that says what is wrong, nothing changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shards import write_dataset

from jobs.__main__ import main
from nnlib.data.decoded_rows import BLOCKS

Capture = pytest.CaptureFixture[str]
ROWS, SHARDS = 48, 4
TRAIN = ("train", "c.yaml", "--run-dir", "run")


def sound(folder: Path) -> None:
    """A dataset ``d`` of two classes and a configuration ``c.yaml`` of two rounds; nothing held from other tests."""
    BLOCKS.clear()
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, ROWS)
    write_dataset(folder / "d", rng.normal(size=(ROWS, 3)) + 2 * y[:, None], y, shards=SHARDS, classes=2)
    (folder / "c.yaml").write_text(
        "data: {path: d}\nworkers: 2\nmodel: {hidden: [4]}\ntrain: {epochs: 2, epochs_per_round: 1, batch_size: 8}\n"
    )


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(capsys: Capture, code: int, *arguments: str, says: tuple[str, ...] = ()) -> str:
    """The command ends with this code, says all this on standard error, and leaves every file as it was."""
    before = contents(Path())
    capsys.readouterr()
    found = main(list(arguments))
    told = capsys.readouterr()
    assert found == code, told.err
    assert told.out == ""
    assert "Traceback" not in told.err and "unexpected" not in told.err and len(told.err.splitlines()) < 30
    for part in says:
        assert part in told.err, told.err
    assert contents(Path()) == before
    return told.err
