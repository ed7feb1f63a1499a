"""The arrays of a layout: name, shape, kind and dtype of each, and how the workers' values of it are combined."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

Role = Literal["parameter", "buffer", "optimizer"]
"""parameter: has a gradient; buffer: part of the model without one; optimizer: a local optimizer's, averaged if
asked."""

Rule = Literal["mean", "max", "keep"]
"""How the workers' values are combined. mean: weighted by examples, in float64; max: the largest of each element; keep:
they must be the same at all workers."""

BUFFER_DTYPES = [
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
]
"""Dtypes of buffers: those that numpy, safetensors and the lines between tasks all have."""


class Entry(NamedTuple):
    """One named array of a layout: ``offset`` elements into the vector of its `Segment`.

    ``decays``: whether the L2 term counts it with `train.decay: matrices` (weights, not biases). `parameter`, `buffer`
    and `optimizer_state` make entries; `Layout.build` gives them their offsets, and the layout's dtype to those of the
    flat vector.
    """

    name: str
    shape: tuple[int, ...]
    kind: Role
    offset: int = 0
    dtype: str = ""
    rule: Rule = "mean"
    decays: bool = False

    @property
    def size(self) -> int:
        """Elements of the array."""
        return math.prod(self.shape)

    @property
    def range(self) -> slice:
        """Where the array lies in its segment's vector."""
        return slice(self.offset, self.offset + self.size)


def parameter(name: str, shape: Sequence[int], *, decays: bool) -> Entry:
    """Describe an array that training changes. ``decays``: whether it is a weight, not a bias."""
    return Entry(name, _sides(shape), "parameter", decays=decays)


def optimizer_state(name: str, shape: Sequence[int]) -> Entry:
    """Describe an array of a local optimizer that is averaged like parameters."""
    return Entry(name, _sides(shape), "optimizer")


def buffer(name: str, shape: Sequence[int], dtype: str, rule: Rule) -> Entry:
    """Describe an array of the model that has no gradient. Raises `ValueError` for a dtype that is not in
    `BUFFER_DTYPES`, and for a mean of whole numbers, which would not be exact."""
    if dtype not in BUFFER_DTYPES:
        raise ValueError(f"buffer {name}: dtype must be one of {', '.join(BUFFER_DTYPES)}, got {dtype!r}")
    if rule == "mean" and not dtype.startswith("float"):
        raise ValueError(f"buffer {name}: {dtype} has no mean that is exact, choose max or keep")
    return Entry(name, _sides(shape), "buffer", dtype=dtype, rule=rule)


def _sides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(side) for side in shape)


@dataclass(frozen=True)
class Segment:
    """Entries of one dtype that are combined by one rule, back to back in one vector, each in C order."""

    dtype: str
    rule: Rule
    entries: tuple[Entry, ...]

    @cached_property
    def size(self) -> int:
        """Elements of the segment's vector."""
        return sum(entry.size for entry in self.entries)

    @property
    def nbytes(self) -> int:
        """Bytes of the segment's vector."""
        return self.size * int(np.dtype(self.dtype).itemsize)

    def entry_at(self, index: int) -> Entry:
        """The entry that holds an element of the vector."""
        return next(entry for entry in self.entries if entry.offset <= index < entry.offset + entry.size)


def laid(entries: Iterable[Entry], dtype: str) -> tuple[Entry, ...]:
    """The entries of one segment, of ``dtype``, with their offsets."""
    result: list[Entry] = []
    offset = 0
    for each in entries:
        result.append(each._replace(offset=offset, dtype=dtype))
        offset += each.size
    return tuple(result)
