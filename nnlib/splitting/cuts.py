"""Partitions that cut little affinity: by spectral clustering, and the least cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from nnlib.core.arrays import FloatArray, IntArray
from nnlib.core.partition import Partition
from nnlib.splitting.balanced import all_partitions, count_partitions

MAX_COMPARED = 100_000
"""Partitions up to which the least cut is found by comparing them all, in seconds."""


def spectral_partition(affinity: FloatArray, widths: Sequence[int], groups: int, seed: int = 0) -> Partition:
    """Return a balanced partition by normalized spectral clustering (Ng, Jordan and Weiss 2002).

    Units are embedded by the first eigenvectors of the normalized Laplacian and clustered by k-means, which ``seed``
    begins; then the units of each layer are assigned to the clusters at the least total squared distance that keeps
    the groups balanced.
    """
    from scipy.cluster.vq import kmeans2  # late: the rest of this room needs no scipy
    from scipy.linalg import eigh

    degree = affinity.sum(axis=1)
    scale = np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    laplacian = np.eye(len(affinity)) - scale[:, None] * affinity * scale
    _, vectors = eigh(laplacian, subset_by_index=(0, groups - 1))
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(groups)])  # eigenvectors have no sign
    points = vectors * signs
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    points = np.divide(points, norms, out=np.zeros_like(points), where=norms > 0)
    centres, _ = kmeans2(points, groups, minit="++", seed=seed, iter=100)
    distances = np.square(points[:, None] - centres[None]).sum(axis=2)
    ends = np.cumsum([0, *widths])
    layers = [_balanced(distances[start:end]) for start, end in itertools.pairwise(ends)]
    return Partition.of(layers).canonical()


def _balanced(distances: FloatArray) -> list[int]:
    """The group of each unit of a layer, at the least total of ``distances`` (units, groups) with balanced sizes."""
    from scipy.optimize import linear_sum_assignment

    units, groups = distances.shape
    small, larger = divmod(units, groups)
    places = np.repeat(np.arange(groups), small + 1 if larger else small)
    cost = distances[:, places]
    if larger:  # of the places that a group need not fill some stay empty: stand-ins take them, and no other
        first_of_each = np.arange(len(places)) % (small + 1) == small
        forbidden = 1.0 + 2.0 * len(places) * float(distances.max())
        stand_ins = np.where(first_of_each, 0.0, forbidden)
        cost = np.vstack([cost, np.tile(stand_ins, (len(places) - units, 1))])
    _, taken = linear_sum_assignment(cost)
    return [int(places[place]) for place in taken[:units]]


def least_cut_partition(affinity: FloatArray, widths: Sequence[int], groups: int) -> Partition:
    """Return the balanced partition that cuts the least affinity.

    Where there are no more than `MAX_COMPARED` of them all are compared. Else the spectral partition is improved: of
    all exchanges of two units of a layer the best is made, again and again, until none cuts less (a local minimum, in
    the manner of Kernighan and Lin 1970).
    """
    if count_partitions(widths, groups) <= MAX_COMPARED:
        best, least = None, np.inf
        for some in _in_blocks(all_partitions(widths, groups)):
            cuts = cut_affinity(affinity, some)
            if cuts.min() < least:
                best, least = some[int(cuts.argmin())], float(cuts.min())
        assert best is not None
        return best
    layer_of = np.repeat(np.arange(len(widths)), widths)
    group_of = np.concatenate(spectral_partition(affinity, widths, groups).layers).astype(np.int64)
    while True:
        gain = _exchange_gains(affinity, group_of)
        gain[layer_of[:, None] != layer_of] = 0.0
        first, second = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[first, second] <= 1e-12 * affinity.sum():
            break
        group_of[[first, second]] = group_of[[second, first]]
    return Partition.of([layer.tolist() for layer in np.split(group_of, np.cumsum(widths)[:-1])]).canonical()


def cut_affinity(affinity: FloatArray, partitions: Sequence[Partition]) -> FloatArray:
    """Return the affinity between units of different groups, each pair once, for each partition: shape
    (len(partitions),)."""
    groups = np.array([np.concatenate(partition.layers) for partition in partitions])
    members = (groups[:, None] == np.arange(groups.max() + 1)[:, None]).astype(np.float64)
    within = np.einsum("pgu,pgu->p", members @ affinity, members)
    cut: FloatArray = (affinity.sum() - within) / 2
    return cut


def _exchange_gains(affinity: FloatArray, group_of: IntArray) -> FloatArray:
    """By how much less is cut once two units change their groups, shape (units, units); 0 within a group."""
    members = group_of[:, None] == np.arange(group_of.max() + 1)
    towards = affinity @ members  # of a unit, towards each group
    own = towards[np.arange(len(group_of)), group_of]
    moved = towards[:, group_of] - own[:, None]  # what a unit gains in the group of another
    gain: FloatArray = np.where(group_of[:, None] == group_of, 0.0, moved + moved.T - 2 * affinity)
    return gain


def _in_blocks(partitions: Iterator[Partition]) -> Iterator[list[Partition]]:
    while block := list(itertools.islice(partitions, 4096)):
        yield block
