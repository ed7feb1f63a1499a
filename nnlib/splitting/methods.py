"""The partitions that a study compares, by the methods that choose them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnlib.config.schema import Splitting
from nnlib.core.arrays import FloatArray
from nnlib.core.errors import ConfigError
from nnlib.core.partition import Partition
from nnlib.core.seeds import Purpose, generator
from nnlib.splitting.balanced import all_partitions, count_partitions, random_partition
from nnlib.splitting.cuts import least_cut_partition, spectral_partition

MAX_PARTITIONS = 20_000
"""Partitions that one study may train: each is a trial of its job."""


@dataclass(frozen=True)
class Affinities:
    """What belongs together in one net, as `nnlib.splitting.affinity` sees it, shape (units, units) each."""

    weights: FloatArray
    activations: FloatArray


CUTTERS = {"spectral": spectral_partition, "least-cut": least_cut_partition}


def chosen_partitions(
    splitting: Splitting, widths: Sequence[int], affinities: Affinities, *, seed: int, by_layer: bool
) -> dict[str, list[Partition]]:
    """Return the partitions of one net by the method that chooses them, each list without doubles.

    ``widths``: units of each hidden layer. ``seed``: of random partitions, which are the same for every net of a study.
    ``by_layer``: see `nnlib.splitting.balanced.all_partitions`. Raises `ConfigError` for layers with fewer units than
    there are groups, and for too many partitions.
    """
    groups = splitting.groups
    if min(widths) < groups:
        raise ConfigError(
            f"a hidden layer of {min(widths)} units cannot be cut into {groups} groups", key="splitting.groups"
        )
    chosen: dict[str, list[Partition]] = {}
    for method in splitting.methods:
        cutter, _, of = method.rpartition("-")
        if method == "all":
            partitions = _all(widths, groups, by_layer)
        elif method == "random":
            partitions = _random(splitting, widths, seed, by_layer)
        else:
            partitions = [CUTTERS[cutter](getattr(affinities, of), widths, groups)]
        chosen[method] = list(dict.fromkeys(each.canonical(by_layer=by_layer) for each in partitions))
    return chosen


def methods_of(chosen: Mapping[str, Sequence[Partition]]) -> dict[Partition, list[str]]:
    """Return the methods that chose each partition, in the order of the methods."""
    methods: dict[Partition, list[str]] = {}
    for method, partitions in chosen.items():
        for partition in partitions:
            methods.setdefault(partition, []).append(method)
    return methods


def _all(widths: Sequence[int], groups: int, by_layer: bool) -> list[Partition]:
    count = count_partitions(widths, groups, by_layer=by_layer)
    if count > MAX_PARTITIONS:
        raise ConfigError(
            f"hidden layers of {'-'.join(map(str, widths))} units have {count:,} balanced partitions into {groups} "
            f"groups, a study trains at most {MAX_PARTITIONS:,}",
            hint="use the method random",
            key="splitting.methods",
        )
    return list(all_partitions(widths, groups, by_layer=by_layer))


def _random(splitting: Splitting, widths: Sequence[int], seed: int, by_layer: bool) -> list[Partition]:
    """As many different partitions as are asked for, or all where there are no more."""
    wanted = min(splitting.random, MAX_PARTITIONS)
    if count_partitions(widths, splitting.groups, by_layer=by_layer) <= wanted:
        return _all(widths, splitting.groups, by_layer)
    rng = generator(seed, Purpose.PARTITION)
    drawn: dict[Partition, None] = {}
    while len(drawn) < wanted:
        drawn[random_partition(widths, splitting.groups, rng).canonical(by_layer=by_layer)] = None
    return list(drawn)
