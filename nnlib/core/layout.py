"""The layout of the flat vector: which parameter lies where, as one frozen value with a fingerprint.

Whatever crosses a process or a file (partials, averages, checkpoints) carries the fingerprint, so that two
vectors can only meet if every number in them means the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nnlib.core.errors import MismatchError

Kind = Literal["weight", "bias", "state"]
"""weight: counts in the L2 term; bias: does not; state: a local optimizer's, averaged if asked."""

BLOCK = 65_536
"""Elements in a block. Norms are summed block by block and slices end on block edges, so no choice of slices or
reducers can change a sum."""


@dataclass(frozen=True)
class Entry:
    """One array in the flat vector."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def range(self) -> slice:
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """Names, shapes, kinds and dtype of the arrays in a flat vector, back to back, each in C order."""

    entries: tuple[Entry, ...]
    dtype: Literal["float32", "float64"]

    @classmethod
    def build(cls, arrays: Iterable[tuple[str, Sequence[int], Kind]], dtype: str) -> Layout:
        """Lay arrays back to back in the order given."""
        entries: list[Entry] = []
        offset = 0
        for name, shape, kind in arrays:
            entry = Entry(name, tuple(int(side) for side in shape), kind, offset)
            entries.append(entry)
            offset += entry.size
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
        return cls(tuple(entries), dtype)  # type: ignore[arg-type]

    def extended(self, arrays: Iterable[tuple[str, Sequence[int], Kind]]) -> Layout:
        """This layout with more arrays behind it (a local optimizer's averaged state)."""
        own = [(entry.name, entry.shape, entry.kind) for entry in self.entries]
        return Layout.build([*own, *arrays], self.dtype)

    @cached_property
    def size(self) -> int:
        """Elements of the flat vector."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def itemsize(self) -> int:
        return int(np.dtype(self.dtype).itemsize)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over names, shapes, kinds and dtype."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        arrays = [[entry.name, list(entry.shape), entry.kind] for entry in self.entries]
        return {"arrays": arrays, "dtype": self.dtype}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Layout:
        return cls.build([(name, shape, kind) for name, shape, kind in data["arrays"]], data["dtype"])

    def check(self, flat: npt.NDArray[Any]) -> None:
        """Refuse a vector that does not have this layout's size and dtype."""
        if flat.shape != (self.size,) or flat.dtype != np.dtype(self.dtype):
            raise MismatchError(
                f"expected a vector of {self.size} {self.dtype}, got shape {flat.shape} {flat.dtype}",
                layout=self.fingerprint,
            )

    def views(self, flat: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Each array as a view of ``flat`` (shape (size,)): writing to one writes to the other."""
        self.check(flat)
        return {entry.name: flat[entry.range].reshape(entry.shape) for entry in self.entries}

    def weight_ranges(self) -> list[slice]:
        """The ranges the L2 term counts (weights, not biases)."""
        return [entry.range for entry in self.entries if entry.kind == "weight"]


def slices(size: int, slice_elements: int) -> list[slice]:
    """Cut ``range(size)`` into slices of at most ``slice_elements``, rounded up to whole blocks."""
    step = max(1, math.ceil(slice_elements / BLOCK)) * BLOCK
    return [slice(start, min(start + step, size)) for start in range(0, max(size, 1), step)]


def blocks(size: int) -> list[slice]:
    """The fixed blocks of ``range(size)`` over which norms are summed."""
    return slices(size, BLOCK)


def aligned_empty(size: int, dtype: npt.DTypeLike, alignment: int = 64) -> npt.NDArray[Any]:
    """An uninitialised vector whose first byte lies on a cache line, wherever it is made."""
    item = np.dtype(dtype).itemsize
    raw = np.empty(size * item + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size * item].view(dtype)
