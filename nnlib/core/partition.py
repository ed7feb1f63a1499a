"""A partition of a net's hidden units into groups, and the sub-nets that are made of the groups.

Written as text: a letter for each unit names its group, layers are joined by a hyphen. ``aabb-abab`` cuts two hidden
layers of four units into the groups a and b. Every group has units in every layer.

A sub-net has one group of each hidden layer, and all inputs and outputs. With G groups, the sub-nets of *shift* s are
G nets without a unit in common: sub-net i takes group (i + s * l) mod G of layer l. Shift 0 takes the same group of
all layers, and leaves out every weight between two groups. The G shifts together hold every weight of the net.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nnlib.core.arrays import IntArray

LETTERS = "abcdefghijklmnopqrstuvwxyz"

Alternate = Literal["none", "together", "rounds"]
"""none: only the sub-nets of shift 0; together: those of all shifts in every round; rounds: one shift a round."""

Subnet = tuple[int, ...]
"""The group that a sub-net takes of each hidden layer."""


@dataclass(frozen=True)
class Partition:
    """The group of each unit of each hidden layer, counted from 0."""

    layers: tuple[tuple[int, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Read the text of a partition. Raises `ValueError` where it is none, saying why."""
        if not re.fullmatch(r"[a-z]+(-[a-z]+)*", text):
            raise ValueError(f"a partition is a letter for each hidden unit, layers joined by -: got {text[:60]!r}")
        return cls.of([[LETTERS.index(letter) for letter in layer] for layer in text.split("-")])

    @classmethod
    def of(cls, layers: Sequence[Sequence[int]]) -> Partition:
        """Make a partition from group numbers. Raises `ValueError` where a layer lacks a group that another has."""
        partition = cls(tuple(tuple(int(group) for group in layer) for layer in layers))
        for number, layer in enumerate(partition.layers):
            if missing := set(range(partition.groups)) - set(layer):
                raise ValueError(f"hidden layer {number + 1} has no unit in group {LETTERS[min(missing)]}")
        if partition.groups < 2:
            raise ValueError("a partition has at least two groups, a and b")
        return partition

    @cached_property
    def groups(self) -> int:
        """The number of groups."""
        return 1 + max(max(layer) for layer in self.layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of units of each hidden layer."""
        return tuple(map(len, self.layers))

    def __str__(self) -> str:
        return "-".join("".join(LETTERS[group] for group in layer) for layer in self.layers)

    @property
    def shifts(self) -> int:
        """How many shifts it takes to hold every weight: one where no weight joins two hidden layers."""
        return self.groups if len(self.layers) > 1 else 1

    def subnets(self, shift: int) -> list[Subnet]:
        """Return the sub-nets of a shift: no two have a unit in common, all units are in one."""
        depth = range(len(self.layers))
        return [tuple((first + shift * layer) % self.groups for layer in depth) for first in range(self.groups)]

    def subnets_at_once(self, alternate: Alternate) -> int:
        """Return how many sub-nets train in one round."""
        return self.groups * (self.shifts if alternate == "together" else 1)

    def subnet_of(self, alternate: Alternate, worker: int, round_: int) -> Subnet:
        """Return the sub-net that a worker trains in the round that follows ``round_`` rounds."""
        number = worker % self.subnets_at_once(alternate)
        shift = number // self.groups if alternate == "together" else 0
        if alternate == "rounds":
            shift = round_ % self.shifts
        return self.subnets(shift)[number % self.groups]

    def units(self, subnet: Subnet) -> list[IntArray]:
        """Return the units of a sub-net in each hidden layer, ascending."""
        import numpy as np  # every configuration imports this module, few have a partition

        return [
            np.flatnonzero(np.asarray(layer) == group).astype(np.int64)
            for layer, group in zip(self.layers, subnet, strict=True)
        ]

    def canonical(self, *, by_layer: bool = False) -> Partition:
        """Return the partition with its groups named in the order of their first units in the first layer; with
        ``by_layer`` in the order of each layer, which is the same where all shifts train together."""
        first = _order(self.layers[0])
        layers = [_order(layer) if by_layer else first for layer in self.layers]
        return Partition(
            tuple(
                tuple(order.index(group) for group in layer) for order, layer in zip(layers, self.layers, strict=True)
            )
        )


def _order(layer: Sequence[int]) -> list[int]:
    """The groups of a layer, in the order in which they come first."""
    return list(dict.fromkeys(layer))
