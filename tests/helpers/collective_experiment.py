"""A small experiment of two trials, in rounds and collective mode, and what must be equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.driver import driver
from nnlib.config.schema import Config
from nnlib.config.sweep import applied
from nnlib.run.directory import RunDirectory


def config(blobs: str, run: Path, **changes: Any) -> Config:
    """A small experiment of two trials; ``changes`` are dotted keys with ``__`` for the dot."""
    values: dict[str, Any] = {
        "data": {"path": blobs},
        "workers": 3,
        "run_dir": str(run),
        "model": {"hidden": [5]},
        "split": {"seeds": [0, 4], "validation": 0.2},
        "train": {"epochs": 8, "epochs_per_round": 2, "batch_size": 16, "l2": 0.1},
    }
    return Config.model_validate(applied(values, {key.replace("__", "."): value for key, value in changes.items()}))


def substance(run: Path) -> dict[str, Any]:
    """All of a run that must not depend on how it was trained: the ledger's lines, metrics, final models and scores."""
    directory = RunDirectory.open(str(run))
    store = directory.rounds(directory.spec())
    return {
        "ledger": [store.log.ledger(round_) for round_ in store.rounds()],
        "metrics": [store.log.metrics(round_) for round_ in store.rounds()],
        "view": (run / "metrics.jsonl").read_bytes(),
        **{path.name: path.read_bytes() for path in sorted((run / "final").iterdir())},
    }


def both(blobs: str, where: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The substance of the same run in rounds mode and in collective mode, inline."""
    driver.train(config(blobs, where / "rounds", **changes))
    driver.train(config(blobs, where / "collective", sync__mode="collective", **changes))
    return substance(where / "rounds"), substance(where / "collective")
