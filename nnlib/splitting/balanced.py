"""All balanced partitions of hidden units, and random ones: the groups of a layer differ in size by at most one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from nnlib.core.partition import Partition


def count_partitions(widths: Sequence[int], groups: int, *, by_layer: bool = False) -> int:
    """Return how many partitions `all_partitions` yields."""
    ways = [_ways(width, groups) for width in widths]
    names = math.factorial(groups)
    return math.prod(way // names for way in ways) if by_layer else math.prod(ways) // names


def all_partitions(widths: Sequence[int], groups: int, *, by_layer: bool = False) -> Iterator[Partition]:
    """Yield every balanced partition once, whatever its groups are called, in a fixed order.

    ``widths``: units of each hidden layer, at least ``groups`` each. ``by_layer``: partitions that differ only in which
    groups of two layers have the same name are the same, as they are where all shifts train together
    (`nnlib.core.partition`).
    """
    first = [layer for layer in _layers(widths[0], groups) if _is_canonical(layer)]
    others = [
        [layer for layer in _layers(width, groups) if not by_layer or _is_canonical(layer)] for width in widths[1:]
    ]
    for layers in itertools.product(first, *others):
        yield Partition(layers)


def random_partition(widths: Sequence[int], groups: int, rng: np.random.Generator) -> Partition:
    """Draw a balanced partition. Which groups are the larger ones is drawn, too."""
    layers = []
    for width in widths:
        names = rng.permutation(groups)
        layers.append(rng.permutation(names[np.arange(width) % groups]).tolist())
    return Partition.of(layers).canonical()


def _ways(width: int, groups: int) -> int:
    """Balanced ways to put ``width`` units into named groups."""
    small, larger = divmod(width, groups)
    ways = math.comb(groups, larger) * math.factorial(width)
    return int(ways // (math.factorial(small + 1) ** larger * math.factorial(small) ** (groups - larger)))


def _layers(width: int, groups: int) -> Iterator[tuple[int, ...]]:
    """Every balanced way for one layer, in lexicographic order."""
    small, larger = divmod(width, groups)

    def extend(layer: tuple[int, ...], sizes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(layer) == width:
            yield layer
            return
        for group in range(groups):
            is_large = sizes[group] == small
            if sizes[group] < small or (is_large and larger and sum(size > small for size in sizes) < larger):
                grown = (*sizes[:group], sizes[group] + 1, *sizes[group + 1 :])
                yield from extend((*layer, group), grown)

    yield from extend((), (0,) * groups)


def _is_canonical(layer: Sequence[int]) -> bool:
    """Whether groups are named in the order of their first units."""
    return list(dict.fromkeys(layer)) == sorted(set(layer))
