"""The layout of a model's numbers: where each array lies, and how the workers' values of it are combined.

A model's numbers are a `ModelState`: one flat vector, and buffers. The flat vector has the parameters and, behind them,
a local optimizer's averaged state, all of one dtype and combined by the mean. Gradients, the L2 term, the outer step,
drift, `sync.precision` and error feedback work on it, so none of them has to look for buffers. Buffers (running
statistics, counters) lie apart, in one vector for each `Segment` (a dtype with a rule), and travel exactly: an int64
counter in a float32 model stays an int64.

Tied parameters are one entry with several names (``aliases``). Frozen parameters are not part of the layout: they
are the same at all workers and after all rounds, and belong where the model itself is described.

Whatever crosses a process or a file (partials, averages, checkpoints) carries the layout's fingerprint, so that two
vectors can only meet if every number in them means the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from nnlib.core.arrays import Array, Vector
from nnlib.core.entries import Entry, Rule, Segment, laid
from nnlib.core.errors import MismatchError

BLOCK = 65_536
"""Elements in a block. Norms are summed block by block and slices end on block edges, so no choice of slices or
reducers can change a sum."""


class ModelState(NamedTuple):
    """The numbers of a layout: ``vector``, shape (layout.size,), and the vector of each of ``layout.buffers``."""

    vector: Vector
    buffers: tuple[Vector, ...] = ()


class LayoutSlice(NamedTuple):
    """A range of the vector of ``Layout.segments[segment]``."""

    segment: int
    range: slice


@dataclass(frozen=True)
class Layout:
    """Names, shapes, kinds and dtypes of a model's arrays. ``entries`` and ``dtype`` are those of the flat vector,
    ``buffers`` are the segments of the buffers, ``aliases`` pairs (another name, the name of a parameter)."""

    entries: tuple[Entry, ...]
    dtype: Literal["float32", "float64"]
    buffers: tuple[Segment, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    @classmethod
    def build(cls, entries: Iterable[Entry], dtype: str, aliases: Mapping[str, str] | None = None) -> Layout:
        """Lay arrays back to back in the order of ``entries``; buffers go into one segment for each dtype and rule.

        Raises `ValueError` for a dtype that is not float32 or float64, and for names that are taken or unknown.
        """
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
        flat: list[Entry] = []
        apart: dict[tuple[str, Rule], list[Entry]] = {}
        for entry in entries:
            if entry.kind == "buffer":
                apart.setdefault((entry.dtype, entry.rule), []).append(entry)
            else:
                flat.append(entry)
        buffers = tuple(Segment(kind, rule, laid(segment, kind)) for (kind, rule), segment in apart.items())
        layout = cls(laid(flat, dtype), dtype, buffers, tuple(sorted((aliases or {}).items())))  # type: ignore[arg-type]
        layout._check_names()
        return layout

    def _check_names(self) -> None:
        parameters = {entry.name for entry in self.entries}
        names = [entry.name for entry in self.entries]
        names += [entry.name for segment in self.buffers for entry in segment.entries]
        names += [alias for alias, _ in self.aliases]
        if len(set(names)) < len(names):
            raise ValueError("two arrays of a layout have the same name")
        if unknown := [name for _, name in self.aliases if name not in parameters]:
            raise ValueError(f"aliases of parameters that do not exist: {', '.join(unknown)}")

    def extended(self, entries: Iterable[Entry]) -> Layout:
        """This layout with more arrays behind it (a local optimizer's averaged state)."""
        buffers = (entry for segment in self.buffers for entry in segment.entries)
        return Layout.build([*self.entries, *entries, *buffers], self.dtype, dict(self.aliases))

    @cached_property
    def size(self) -> int:
        """Elements of the flat vector."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def itemsize(self) -> int:
        """Bytes of an element of the flat vector."""
        return int(np.dtype(self.dtype).itemsize)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the flat vector and of all buffers."""
        return sum(segment.nbytes for segment in self.segments)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The flat vector's segment, then those of the buffers."""
        return (Segment(self.dtype, "mean", self.entries), *self.buffers)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over names, shapes, kinds, dtypes and rules."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """What the fingerprint stands for. Buffers and aliases are named only where there are some: the fingerprint of
        other layouts is stored in the lines and checkpoints of older versions."""
        facts: dict[str, Any] = {
            "arrays": [[entry.name, list(entry.shape), _former_kind(entry)] for entry in self.entries],
            "dtype": self.dtype,
        }
        if self.buffers:
            facts["buffers"] = [
                [entry.name, list(entry.shape), entry.dtype, entry.rule]
                for segment in self.buffers
                for entry in segment.entries
            ]
        if self.aliases:
            facts["aliases"] = [list(pair) for pair in self.aliases]
        return facts

    def check(self, flat: npt.NDArray[Any]) -> None:
        """Refuse a vector that does not have this layout's size and dtype, with a `MismatchError`."""
        if flat.shape != (self.size,) or flat.dtype != np.dtype(self.dtype):
            raise MismatchError(
                f"expected a vector of {self.size} {self.dtype}, got shape {flat.shape} {flat.dtype}",
                layout=self.fingerprint,
            )

    def check_buffers(self, buffers: Sequence[Vector]) -> None:
        """Refuse buffers that do not have this layout's sizes and dtypes, with a `MismatchError`."""
        expected = [((segment.size,), np.dtype(segment.dtype)) for segment in self.buffers]
        got = [(vector.shape, vector.dtype) for vector in buffers]
        if got != expected:
            raise MismatchError(f"expected buffers of {expected}, got {got}", layout=self.fingerprint)

    def views(self, flat: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Each array of the flat vector as a view of ``flat`` (shape (size,)), also by its aliases: writing to one
        writes to the other."""
        self.check(flat)
        views = {entry.name: flat[entry.range].reshape(entry.shape) for entry in self.entries}
        for alias, name in self.aliases:
            views[alias] = views[name]
        return views

    def buffer_views(self, buffers: Sequence[Vector]) -> dict[str, Array]:
        """Each buffer as a view of its segment's vector."""
        self.check_buffers(buffers)
        return {
            entry.name: vector[entry.range].reshape(entry.shape)
            for segment, vector in zip(self.buffers, buffers, strict=True)
            for entry in segment.entries
        }

    def split(self, state: ModelState) -> dict[str, Array]:
        """All arrays of a state by name, as views of it; each once, without aliases."""
        views = self.views(state.vector)
        return {entry.name: views[entry.name] for entry in self.entries} | self.buffer_views(state.buffers)

    def zeros(self) -> ModelState:
        """A new state of zeros."""
        return ModelState(np.zeros(self.size, self.dtype), self.zero_buffers())

    def zero_buffers(self) -> tuple[Vector, ...]:
        """New buffers of zeros."""
        return tuple(np.zeros(segment.size, segment.dtype) for segment in self.buffers)

    def slices(self, elements: int) -> list[LayoutSlice]:
        """All segments cut into slices of at most ``elements``, rounded up to whole blocks; the flat vector's first."""
        return [
            LayoutSlice(number, part)
            for number, segment in enumerate(self.segments)
            for part in slices(segment.size, elements)
        ]

    def weight_ranges(self) -> list[slice]:
        """The ranges of the parameters that are weights, not biases."""
        return [entry.range for entry in self.entries if entry.decays]

    def decayed_ranges(self, decay: Literal["matrices", "all"]) -> list[slice]:
        """The ranges of the flat vector that weight decay counts: see the key `train.decay`."""
        if decay == "matrices":
            return self.weight_ranges()
        size = sum(entry.size for entry in self.entries if entry.kind == "parameter")
        return [slice(0, size)]  # parameters lie in front


def _former_kind(entry: Entry) -> str:
    """The kind's name in a fingerprint, from the time when there were three kinds and no buffers."""
    if entry.kind == "optimizer":
        return "state"
    return "weight" if entry.decays else "bias"


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
