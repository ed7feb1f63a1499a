"""Which partitions there are, and which cut the least: against brute force and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnlib.config.schema import Splitting
from nnlib.core.errors import ConfigError
from nnlib.core.partition import Partition
from nnlib.splitting import cuts
from nnlib.splitting.balanced import all_partitions, count_partitions, random_partition
from nnlib.splitting.cuts import cut_affinity, least_cut_partition, spectral_partition
from nnlib.splitting.methods import Affinities, chosen_partitions, methods_of


def brute_force(widths: tuple[int, ...], groups: int, *, by_layer: bool) -> set[str]:
    """Every way to name groups, kept where sizes differ by at most one, under its canonical name."""
    found = set()
    for names in itertools.product(range(groups), repeat=sum(widths)):
        layers = np.split(np.array(names), np.cumsum(widths)[:-1])
        sizes = [np.bincount(layer, minlength=groups) for layer in layers]
        if all(size.min() > 0 and size.max() - size.min() <= 1 for size in sizes):
            found.add(str(Partition.of([layer.tolist() for layer in layers]).canonical(by_layer=by_layer)))
    return found


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize(("widths", "groups"), [((5,), 2), ((4, 3), 2), ((2, 3, 2), 2), ((4, 3), 3), ((7,), 3)])
def test_all_of_them_once(widths: tuple[int, ...], groups: int, by_layer: bool) -> None:
    found = [str(each) for each in all_partitions(widths, groups, by_layer=by_layer)]
    assert len(found) == len(set(found)) == count_partitions(widths, groups, by_layer=by_layer)
    assert set(found) == brute_force(widths, groups, by_layer=by_layer)


def test_the_net_of_the_issue_has_two_hundred() -> None:
    assert count_partitions((6, 6), 2) == 200
    assert count_partitions((6, 6), 2, by_layer=True) == 100


def test_random_ones_are_balanced_and_repeat() -> None:
    drawn = [random_partition((5, 8), 3, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(np.bincount(drawn[0].layers[0])) == [1, 2, 2]
    assert sorted(np.bincount(drawn[0].layers[1])) == [2, 3, 3]


def affinity_of(blocks: list[int], noise: float = 0.05) -> np.ndarray:
    """Units of the same block belong together."""
    rng = np.random.default_rng(0)
    same = np.equal.outer(blocks, blocks)
    affinity = np.where(same, 1.0, noise * rng.random(same.shape))
    affinity = (affinity + affinity.T) / 2
    np.fill_diagonal(affinity, 0.0)
    return affinity


@pytest.mark.parametrize("cutter", [spectral_partition, least_cut_partition])
def test_planted_groups_are_found(cutter: object) -> None:
    affinity = affinity_of([0, 1, 0, 1, 0, 1, 1, 0])
    assert callable(cutter)
    assert str(cutter(affinity, (4, 4), 2)) == "abab-abba"


def test_planted_groups_of_odd_layers() -> None:
    affinity = affinity_of([0, 1, 2, 2, 1, 0, 0])
    assert str(spectral_partition(affinity, (7,), 3)) == "abccbaa"


def test_the_cut_by_hand() -> None:
    affinity = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 4.0], [2.0, 4.0, 0.0]])
    found = cut_affinity(affinity, [Partition.parse("aab"), Partition.parse("abb"), Partition.parse("abc")])
    assert found.tolist() == [6.0, 3.0, 7.0]


@pytest.mark.parametrize(("widths", "groups"), [((6, 6), 2), ((5, 4), 3)])
def test_no_partition_cuts_less(widths: tuple[int, ...], groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    affinity = rng.random((sum(widths),) * 2)
    affinity = affinity + affinity.T
    np.fill_diagonal(affinity, 0.0)
    every = cut_affinity(affinity, list(all_partitions(widths, groups)))
    exact = cut_affinity(affinity, [least_cut_partition(affinity, widths, groups)])
    assert exact[0] == every.min()
    monkeypatch.setattr(cuts, "MAX_COMPARED", 0)
    local = cut_affinity(affinity, [least_cut_partition(affinity, widths, groups)])
    spectral = cut_affinity(affinity, [spectral_partition(affinity, widths, groups)])
    assert every.min() <= local[0] <= spectral[0]


def test_methods_and_what_they_refuse() -> None:
    affinities = Affinities(affinity_of([0, 1, 0, 1, 0, 1]), affinity_of([0, 0, 0, 1, 1, 1]))
    settings = Splitting(methods=["random", "spectral-weights", "least-cut-activations"], random=4)
    chosen = chosen_partitions(settings, (6,), affinities, seed=3, by_layer=False)
    assert [len(partitions) for partitions in chosen.values()] == [4, 1, 1]
    assert [str(chosen[name][0]) for name in settings.methods[1:]] == ["ababab", "aaabbb"]
    assert chosen == chosen_partitions(settings, (6,), affinities, seed=3, by_layer=False)
    every = chosen_partitions(Splitting(methods=["all", "random"]), (6,), affinities, seed=0, by_layer=False)
    assert len(every["all"]) == 10 and set(every["random"]) == set(every["all"])
    assert methods_of(every)[Partition.parse("aaabbb")] == ["all", "random"]
    with pytest.raises(ConfigError, match="2 units cannot be cut into 3"):
        chosen_partitions(Splitting(groups=3), (2,), affinities, seed=0, by_layer=False)
    with pytest.raises(ConfigError, match="use the method random"):
        chosen_partitions(Splitting(), (100, 100), affinities, seed=0, by_layer=False)
