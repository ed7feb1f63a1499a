"""What tests ask of run directories."""

from __future__ import annotations

import hashlib
from pathlib import Path

from nnlib.run.directory import RunDirectory
from nnlib.run.round_store import RoundStore


def deterministic_files(run: Path) -> dict[str, str]:
    """Hashes of everything in a run directory that two runs of the same bits must share."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
        and path.name not in ("log", "events.jsonl", "status.json", "config.yaml", "spec.json")
        and path.parent.name not in ("lock", "cancel", "task-logs")
    }


def rounds_of(run: Path) -> RoundStore:
    directory = RunDirectory.open(str(run))
    return directory.rounds(directory.spec())


def committed(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted((run / "rounds").rglob("*.*"))}
