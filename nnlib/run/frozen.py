"""Frozen parameters of a run: one safetensors file with a set of arrays for each trial, equal sets once.

They are the same at all workers and after all rounds, so no round sends them again. ``frozen.safetensors`` has the
arrays of set 0 as ``0.name``; a set is named by the first trial that has it. ``spec.json`` and the ledger name the
file's SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnlib.core.arrays import Array
from nnlib.core.errors import MismatchError
from nnlib.run.model_file import pack, unpack

FROZEN = "frozen.safetensors"


@dataclass(frozen=True)
class FrozenFacts:
    """What a run says of its frozen parameters: the SHA-256 of their file, and the set of each trial."""

    sha256: str
    sets: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON-able data."""
        return {"sha256": self.sha256, "sets": list(self.sets)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FrozenFacts:
        """Read what `to_json` wrote. Raises `KeyError`, `TypeError` or `ValueError` for other data."""
        return cls(str(data["sha256"]), tuple(int(number) for number in data["sets"]))


def pack_frozen(trials: Sequence[Mapping[str, Array]]) -> tuple[FrozenFacts, bytes] | None:
    """Write the frozen parameters of all trials as a file; None where no trial has any."""
    if not any(trials):
        return None
    sets: dict[str, int] = {}
    numbers: list[int] = []
    arrays: dict[str, Array] = {}
    for index, trial in enumerate(trials):
        number = sets.setdefault(_digest(trial), index)
        numbers.append(number)
        if number == index:
            arrays |= {f"{index}.{name}": array for name, array in trial.items()}
    data = pack(arrays)
    return FrozenFacts(hashlib.sha256(data).hexdigest(), tuple(numbers)), data


def unpack_frozen(facts: FrozenFacts, data: bytes) -> dict[str, Array]:
    """Read what `pack_frozen` wrote: read only arrays by their names in the file. Raises `MismatchError` for another
    file."""
    if hashlib.sha256(data).hexdigest() != facts.sha256:
        raise MismatchError(
            "is not the file of frozen parameters that spec.json names: it was altered or damaged",
            hint="bring back a copy of it",
            file=FROZEN,
        )
    arrays = unpack(data, FROZEN)
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def frozen_of(facts: FrozenFacts, trial: int, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return a trial's frozen parameters by name, of all that `unpack_frozen` read."""
    prefix = f"{facts.sets[trial]}."
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _digest(arrays: Mapping[str, Array]) -> str:
    hashed = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        hashed.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()
