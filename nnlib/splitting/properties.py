"""What a partition of a net is like, before its sub-nets are trained: what might tell how well that goes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from nnlib.core.arrays import FloatArray
from nnlib.core.layout import ModelState
from nnlib.core.partition import Alternate, Partition
from nnlib.data.batches import Batch
from nnlib.models.protocol import DivisibleModel
from nnlib.splitting.cuts import cut_affinity
from nnlib.splitting.methods import Affinities
from nnlib.training.build_learner import load_learner

PROPERTIES: Mapping[str, str] = {
    "cut_weight": "part of the weights between hidden units (absolute values) that joins groups",
    "cut_covariance": "part of the absolute covariance of activations that joins groups",
    "balance": "of the groups' sums of absolute weights the least, times the number of groups; 1: all are equal",
    "start_accuracy": "mean accuracy of the sub-nets on training rows before they train; of values: minus their loss",
}
"""Name -> what it is."""


def properties_of(
    model: DivisibleModel,
    state: ModelState,
    partitions: Sequence[Partition],
    affinities: Affinities,
    rows: Batch,
    *,
    alternate: Alternate,
    rescale: bool,
) -> dict[str, FloatArray]:
    """Return the `PROPERTIES` of each partition of a net, shape (len(partitions),) each.

    ``rows``: training rows that the sub-nets are tried on, as they are cut from ``state`` in the first round.
    """
    strength = _strength(model, state)
    return {
        "cut_weight": _cut_part(affinities.weights, partitions),
        "cut_covariance": _cut_part(affinities.activations, partitions),
        "balance": np.array([_balance(strength, partition) for partition in partitions]),
        "start_accuracy": _start_accuracies(model, state, partitions, rows, alternate, rescale),
    }


def _cut_part(affinity: FloatArray, partitions: Sequence[Partition]) -> FloatArray:
    total = affinity.sum() / 2
    cut = cut_affinity(affinity, partitions)
    return cut / total if total else np.zeros(len(partitions))


def _strength(model: DivisibleModel, state: ModelState) -> FloatArray:
    """The sum of the absolute weights of each hidden unit, to the units below and above it, layer after layer."""
    connections = [np.asarray(each, np.float64) for each in model.connections(state.vector)]
    return np.concatenate([below.sum(axis=0) + above.sum(axis=1) for below, above in itertools.pairwise(connections)])


def _balance(strength: FloatArray, partition: Partition) -> float:
    sums = np.bincount(np.concatenate(partition.layers), weights=strength, minlength=partition.groups)
    return float(partition.groups * sums.min() / sums.sum()) if sums.sum() else 1.0


def _start_accuracies(
    model: DivisibleModel,
    state: ModelState,
    partitions: Sequence[Partition],
    rows: Batch,
    alternate: Alternate,
    rescale: bool,
) -> FloatArray:
    known: dict[tuple[bytes, ...], float] = {}  # many partitions share a sub-net
    result = np.zeros(len(partitions))
    for number, partition in enumerate(partitions):
        at_once = range(partition.subnets_at_once(alternate))
        scores = []
        for worker in at_once:
            units = partition.units(partition.subnet_of(alternate, worker, 0))
            key = tuple(layer.tobytes() for layer in units)
            if key not in known:
                part, index, factor = model.subnet(units)
                vector = state.vector[index] * (factor if rescale else 1.0)
                learner = load_learner(part, ModelState(vector.astype(state.vector.dtype)))
                outputs, losses = learner.outputs_and_losses(rows.x, rows.y)
                hits = outputs.argmax(axis=1) == rows.y
                known[key] = float(hits.mean() if outputs.shape[1] > 1 else -losses.mean())
            scores.append(known[key])
        result[number] = float(np.mean(scores))
    return result
