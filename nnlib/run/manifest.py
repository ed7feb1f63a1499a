"""The files of a commit: their names, and the manifest that lists them with size and SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnlib import FORMAT_VERSION
from nnlib.core.errors import MismatchError
from nnlib.run.ledger import digest
from nnlib.run.model_file import parse_json

ROUNDS = "rounds"
MANIFEST = "manifest.json"
MODEL = "model.safetensors"
STATE = "state.safetensors"
TRIALS = "trials.json"
METRICS = "metrics.json"
LEDGER = "ledger.json"
BEST = "best.safetensors"
RESIDUALS = "residuals.safetensors"
OPTIMIZERS = "optimizers.safetensors"
ALWAYS = {MODEL, TRIALS, METRICS, LEDGER}
"""Files that every commit has; those of `SOME` only some."""
KEPT = (RESIDUALS, OPTIMIZERS)
"""What each worker keeps for itself from round to round."""
SOME = {STATE, BEST, *KEPT}
MODELS = (MODEL, STATE, BEST, *KEPT)
"""What pruning deletes, in this order."""


def round_path(round_: int, name: str) -> str:
    """The address of a round's file, inside the run directory."""
    return f"{ROUNDS}/{round_:06d}/{name}"


def repair_hint(round_: int) -> str:
    """What a user can do about a damaged round."""
    return f"delete {ROUNDS}/{round_:06d} to go on from the round before"


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> FileFacts:
        """Measure a file."""
        return cls(len(data), digest(data))

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest; `from_json` is the inverse."""
        return {"bytes": self.size, "sha256": self.sha256}

    @classmethod
    def from_json(cls, data: Any) -> FileFacts:
        """Raises `ValueError` for anything but a size and a hash."""
        if not isinstance(data, dict) or data.keys() != {"bytes", "sha256"}:
            raise ValueError("not the size and the SHA-256 of a file")
        return cls(data["bytes"], data["sha256"])


@dataclass(frozen=True)
class Manifest:
    """The manifest of the commit of ``round``, which holds the rounds from ``first`` to it."""

    round: int
    first: int
    files: Mapping[str, FileFacts]

    @classmethod
    def of(cls, round_: int, first: int, files: Mapping[str, bytes]) -> Manifest:
        """Measure a commit's files."""
        return cls(round_, first, {name: FileFacts.of(data) for name, data in sorted(files.items())})

    @property
    def rounds(self) -> range:
        """The rounds that the commit holds."""
        return range(self.first, self.round + 1)

    def to_json(self) -> dict[str, Any]:
        """As it is stored; ``first`` only where the commit holds several rounds."""
        return {
            "format_version": FORMAT_VERSION,
            "round": self.round,
            **({"first": self.first} if self.first != self.round else {}),
            "files": {name: facts.to_json() for name, facts in self.files.items()},
        }

    @classmethod
    def parse(cls, data: bytes, round_: int, file: str) -> Manifest:
        """Read the manifest of ``round_``. Raises `MismatchError`, which names ``file``, if this is none."""
        facts = parse_json(data, file, repair_hint(round_))
        if facts.get("format_version") != FORMAT_VERSION or facts.get("round") != round_:
            raise MismatchError(f"not the manifest of round {round_} in format {FORMAT_VERSION}", file=file)
        files, first = facts.get("files"), facts.get("first", round_)
        if not isinstance(files, dict) or not ALWAYS <= set(files) <= ALWAYS | SOME:
            raise MismatchError("does not name the files of a round", file=file)
        if type(first) is not int or not 0 <= first <= round_:
            raise MismatchError("does not name the rounds it has", file=file)
        try:
            return cls(round_, first, {name: FileFacts.from_json(entry) for name, entry in files.items()})
        except ValueError as error:
            raise MismatchError(str(error), file=file) from error
